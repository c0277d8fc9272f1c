"""The two pages of a report: Markdown beside its figures, and HTML that holds them."""

import base64
import html
from collections.abc import Sequence

from vpt_jax.reports.style import Figure
from vpt_jax.reports.table import Table

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem;
  padding: 0 1rem; color: #1a1a1a; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
p { color: #555; margin: .2rem 0 .6rem; } section > p { max-width: 48rem; }
img { display: block; max-width: 100%; margin: 2rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .55rem; text-align: left; white-space: nowrap; }
th { border-bottom: 2px solid #999; vertical-align: bottom; }
th.n { white-space: normal; max-width: 9rem; }
td.long { white-space: normal; min-width: 16rem; }
tr + tr td { border-top: 1px solid #e4e4e4; }
.n { text-align: right; } code { background: #f3f3f3; }
summary { margin: 2rem 0 .4rem; font-weight: 600; cursor: pointer; }
"""


_ORIGIN = (
    "Written by `python launch.py --mode report` from the records of runs and sweeps, "
    "figures included."
)
_FEW = 4  # figures that need not be folded away


def markdown(
    parts: Sequence[Table | Figure], notes: dict[str, list[str]], figures: str
) -> str:
    """The page as text; figures by the names of their files.

    Args:
        parts: In the order of the page.
        notes: Lists of lines by their heading; an empty one is left out.
        figures: Their folder, relative to that of the page.
    """
    blocks = ["# Results\n", f"{_ORIGIN}\n"]
    for part in parts:
        if isinstance(part, Table):
            blocks.append(part.markdown())
        else:
            blocks.append(f"![{part.title}]({figures}/{part.name}.png)\n")
    for heading, lines in notes.items():
        if lines:
            blocks += [f"## {heading}\n", *(f"- {line}" for line in lines), ""]
    return "\n".join(blocks) + "\n"


def page(parts: Sequence[Table | Figure], notes: dict[str, list[str]]) -> str:
    """The page as HTML that needs no other file; arguments as of `markdown`."""
    folded = [p for p in parts if isinstance(p, Figure) and p.detail]
    blocks = [
        part.html() if isinstance(part, Table) else _figure(part)
        for part in parts
        if part not in folded
    ]
    if folded:
        state = " open" if len(folded) <= _FEW else ""
        count = f"{len(folded)} figures"
        blocks.append(
            f"<details{state}><summary>Sweeps one by one ({count})</summary>\n"
        )
        blocks += [*map(_figure, folded), "</details>\n"]
    for heading, lines in notes.items():
        if lines:
            items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
            title = f"<h2>{html.escape(heading)}</h2>"
            blocks.append(f"<section>{title}<ul>{items}</ul></section>\n")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>Results</title><style>{_STYLE}</style></head>\n<body><h1>Results</h1>\n"
        + "".join(blocks)
        + "</body></html>\n"
    )


def _figure(figure: Figure) -> str:
    """Its picture within the page, at the size it was drawn for."""
    content = base64.b64encode(figure.png).decode()
    title = html.escape(figure.title)
    return (
        f'<p><img alt="{title}" style="width: {figure.width:g}in" '
        f'src="data:image/png;base64,{content}"></p>\n'
    )
