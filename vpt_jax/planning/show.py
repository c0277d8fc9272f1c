"""A plan as tables on the terminal."""

from rich.console import Console
from rich.table import Table

GB = 1e9


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
    for name in ("GB a chip", "fits", "TFLOP", "GB moved", "M cycles", "seconds"):
        table.add_column(name, justify="right")
    for name in ("images/s", "of the peak", "calls"):
        table.add_column(name, justify="right")
    table.add_column("between chips")
    for program in stage["programs"]:
        seconds, cycles = program["seconds"], program["estimated_cycles"]
        table.add_row(
            program["name"],
            f"{program['bytes']['all'] / GB:.2f}",
            "yes" if program["fits"] else "[red]no[/red]",
            f"{program['flops'] / 1e12:.3f}",
            f"{program['traffic_bytes'] / GB:.1f}",
            f"{cycles / 1e6:.1f}" if cycles else "-",
            f"{seconds:.4f}" if seconds else "-",
            f"{program['images'] / seconds:,.0f}" if seconds else "-",
            f"{100 * program['of_peak']:.0f} %" if program["of_peak"] else "-",
            f"{program['calls']:,}",
            ", ".join(
                f"{moved['count']} {kind} of {moved['bytes'] / 1e6:.2f} MB"
                for kind, moved in program["collectives"].items()
            )
            or "nothing",
        )
    return table


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
        rows += [
            ("time", f"{found['seconds'] / 60:,.1f} minutes, without compilation"),
            ("chip-hours", f"{hours:,.2f} of {found['chips']} chips"),
        ]
        if price is not None:
            rows.append(("cost", f"{hours * price:,.2f} at {price:g} a chip-hour"))
        rows.append(("estimated by", found["estimate"]))
    for row in rows:
        table.add_row(*row)
    return table
