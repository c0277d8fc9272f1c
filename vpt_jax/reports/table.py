"""A table as data, and its four forms: Markdown, CSV, LaTeX and HTML."""

import csv
import dataclasses
import html
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Generic, TypeVar

Row = TypeVar("Row")
_MANY = 40  # rows, from which on a page folds them away
_LONG = 30  # letters, from which on a cell has several lines


@dataclasses.dataclass(frozen=True)
class Column(Generic[Row]):
    """A column before its rows are known.

    Attributes:
        name: In the header.
        cell: The text of a row; '' or '-' where there is nothing to say.
        note: What a reader must know of it; '' for nothing.
        left: Aligned to the left: text.
    """

    name: str
    cell: Callable[[Row], str]
    note: str = ""
    left: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells are text already; the first column names the row.

    Attributes:
        name: Of its files.
        title: One line.
        note: What a reader must know; '' for nothing.
        header: Names of the columns.
        rows: As many cells each as `header`.
        left: Columns of text; the others are aligned to the right.
    """

    name: str
    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: tuple[int, ...] = (0,)

    def markdown(self) -> str:
        """With its title as a heading."""
        marks = self._by_kind("---", "---:")
        lines = [f"## {self.title}", ""]
        lines += [f"{self.note}\n"] * bool(self.note)
        for row in (self.header, marks, *self.rows):
            lines.append("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |")
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """Header and rows."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([self.header, *self.rows])
        return out.getvalue()

    def latex(self) -> str:
        """A `table` with booktabs rules."""
        columns = "".join(self._by_kind("l", "r"))
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(self.title)}. {_tex(self.note)}}}",
            rf"\label{{tab:{self.name}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(map(_tex, self.header)) + r" \\",
            r"\midrule",
            *(" & ".join(map(_tex, row)) + r" \\" for row in self.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"

    def html(self) -> str:
        """A section of a page."""
        escape = html.escape

        def cells(tag: str, row: Sequence[str]) -> str:
            kinds = [
                "long" if len(text) > _LONG else "" if k in self.left else "n"
                for k, text in enumerate(row)
            ]
            marks = [f' class="{kind}"' if kind else "" for kind in kinds]
            pairs = zip(marks, row, strict=True)
            return "".join(f"<{tag}{m}>{escape(c)}</{tag}>" for m, c in pairs)

        body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in self.rows)
        note = f"<p>{escape(self.note)}</p>\n" if self.note else ""
        content = (
            '<div class="wide"><table>\n'
            f"<thead><tr>{cells('th', self.header)}</tr></thead>\n"
            f"<tbody>\n{body}\n</tbody></table></div>"
        )
        if len(self.rows) > _MANY:
            fold = f"<summary>{len(self.rows)} rows</summary>"
            content = f"<details>{fold}\n{content}</details>"
        return f"<section><h2>{escape(self.title)}</h2>\n{note}{content}</section>\n"

    def _by_kind(self, text: str, number: str) -> list[str]:
        return [text if k in self.left else number for k in range(len(self.header))]


def build(
    name: str,
    title: str,
    columns: Sequence[Column[Row]],
    rows: Iterable[Row],
    note: str = "",
    signs: Mapping[str, str] = MappingProxyType({}),
) -> Table:
    """A table of those columns that say something of any row.

    Args:
        name, title: See `Table`.
        columns: In their order.
        rows: Of any kind that the columns understand.
        note: Goes before the notes of the columns that are there.
        signs: What a sign beside numbers means; explained where one has it.
    """
    rows = list(rows)
    filled = [(column, [column.cell(row) for row in rows]) for column in columns]
    kept = [(c, cells) for c, cells in filled if set(cells) - {"", "-"}]
    numbers = "".join("".join(cells) for column, cells in kept if not column.left)
    notes = [note, *(column.note for column, _ in kept)]
    notes += [meaning for sign, meaning in signs.items() if sign in numbers]
    return Table(
        name=name,
        title=title,
        note=" ".join(filter(None, dict.fromkeys(notes))),
        header=tuple(column.name for column, _ in kept),
        rows=tuple(zip(*(cells for _, cells in kept), strict=True)),
        left=tuple(k for k, (column, _) in enumerate(kept) if column.left),
    )


def number(value: float | int | None, digits: int = 2, signed: bool = False) -> str:
    """'-' for nothing."""
    if value is None:
        return "-"
    return f"{value:+.{digits}f}" if signed else f"{value:,.{digits}f}"


_TEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in text)
