"""A plan as tables on the terminal."""

from rich.console import Console
from rich.table import Table

from vpt_jax.planning.target import ROOFLINE

GB = 1e9
NAMES = {
    "init": "init",
    "prefix": "prefix, a batch",
    "chunk": "training step",
    "outputs": "scoring, a batch",
}
"""Of programs, as a person reads them."""


def show(found: dict, price: float | None = None) -> None:
    """Print what `plan` found; `price` is that of a chip for an hour."""
    console = Console()
    for stage in found["stages"]:
        console.print(_programs(stage, found))
        console.print(_memory(stage, found["chip_bytes"]))
    console.print(_whole(found, price))


def _programs(stage: dict, found: dict) -> Table:
    at_once = f"{stage['trials']} trials, {stage['at_once']} at once"
    title = f"{stage['name']} on {found['on']}: {at_once}; {stage['place']}"
    table = Table(title=title, title_justify="left")
    table.add_column("one call of")
    bound = found["estimate"] == ROOFLINE
    columns = [_column(program, bound) for program in stage["programs"]]
    for program in stage["programs"]:
        table.add_column(NAMES[program["name"]], justify="right")
    for row in columns[0]:
        table.add_row(row, *(column[row] for column in columns))
    return table


def _column(program: dict, bound: bool) -> dict[str, str]:
    """What is said of one program, by the name of the row.

    Args:
        bound: Its time is what it cannot be quicker than, not an estimate.
    """
    seconds, cycles = program["seconds"], program["estimated_cycles"]
    traffic = program["traffic_bytes"]
    moved = [
        f"{one['count']} {kind}, {one['bytes'] / 1e6:,.2f} MB"
        for kind, one in program["collectives"].items()
    ]
    rate = program["images"] / seconds if seconds and program["images"] else None
    share = program["of_peak"] if rate and not bound else None
    least, most = ("≥ ", "≤ ") if bound else ("", "")
    return {
        "memory [GB a chip]": f"{program['bytes']['all'] / GB:.2f}",
        "fits": "yes" if program["fits"] else "[red]no[/red]",
        "TFLOP": f"{program['flops'] / 1e12:.3f}",
        "memory traffic [GB]": "-" if traffic is None else f"{traffic / GB:.2f}",
        "between chips": "\n".join(moved) or "nothing",
        "million cycles": f"{cycles / 1e6:.1f}" if cycles else "-",
        "milliseconds": f"{least}{1e3 * seconds:.2f}" if seconds else "-",
        "images/s": f"{most}{rate:,.0f}" if rate else "-",
        "of the peak": f"{100 * share:.0f} %" if share else "-",
        "calls": f"{program['calls']:,}",
    }


def _memory(stage: dict, capacity: float | None) -> Table:
    """Of the training step, the largest program as a rule."""
    [chunk] = [p for p in stage["programs"] if p["name"] == "chunk"]
    parts = stage["bytes"] | {"temporaries": chunk["bytes"]["temporaries"]}
    table = Table(title="a training step, GB on each chip", title_justify="left")
    for name in (*parts, "the chip has"):
        table.add_column(name, justify="right")
    has = "?" if capacity is None else f"{capacity / GB:.1f}"
    table.add_row(*(f"{size / GB:.3f}" for size in parts.values()), has)
    return table


def _whole(found: dict, price: float | None) -> Table:
    table = Table(title="all of it", title_justify="left", show_header=False)
    proposal = found["proposal"]
    rows = [("fits", "yes" if found["fits"] else "no")]
    if proposal is not None:
        rows.append(("would fit", proposal["change"] or "nothing that was tried"))
        if proposal["tried"]:
            rows.append(("would not", "\n".join(proposal["tried"])))
    rows.append(("training steps", f"{found['steps']:,}"))
    if found["seconds"] is not None:
        hours = found["chip_hours"]
        least = "at least " if found["estimate"] == ROOFLINE else ""
        minutes = f"{least}{found['seconds'] / 60:,.1f} minutes"
        rows += [
            ("time", f"{minutes}, without compilation"),
            ("chip-hours", f"{least}{hours:,.2f} of {found['chips']} chips"),
        ]
        if price is not None:
            rows.append(("cost", f"{hours * price:,.2f} at {price:g} a chip-hour"))
        rows.append(("estimated by", found["estimate"]))
    for row in rows:
        table.add_row(*row)
    return table
