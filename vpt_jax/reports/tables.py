"""A table as data, and its four forms: Markdown, CSV, LaTeX and HTML."""

import csv
import dataclasses
import html
import io


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
        kind = self._by_kind("", ' class="n"')

        def cells(tag, row):
            pairs = zip(kind, row, strict=True)
            return "".join(f"<{tag}{k}>{escape(c)}</{tag}>" for k, c in pairs)

        body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in self.rows)
        note = f"<p>{escape(self.note)}</p>\n" if self.note else ""
        return (
            f'<section><h2>{escape(self.title)}</h2>\n{note}<div class="wide"><table>\n'
            f"<thead><tr>{cells('th', self.header)}</tr></thead>\n"
            f"<tbody>\n{body}\n</tbody></table></div></section>\n"
        )

    def _by_kind(self, text: str, number: str) -> list[str]:
        return [text if k in self.left else number for k in range(len(self.header))]


def number(value: float | None, digits: int = 2, signed: bool = False) -> str:
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
