"""What a person sees of a sweep, on a terminal and elsewhere."""

import io

from rich.console import Console

from vpt_jax.objectives import classification
from vpt_jax.progress import SweepTable


def record(position, val_top1, status="ok"):
    return {
        "unit": "00",
        "position": position,
        "val_top1": val_top1,
        "lr": 0.25,
        "weight_decay": 0.001,
        "status": status,
    }


def show(terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, no_color=True)
    jobs = dict.fromkeys(("cifar100", "dtd"), (40, classification))
    with SweepTable(jobs, console) as table:
        table.start("cifar100", "length=5", 8, 100)
        table.update("cifar100", 0.5, 1234.0)
        table.cohort_done("cifar100", [record(0, 60.0), record(1, None, "failed: x")])
        table.cohort_done("cifar100", [record(2, 62.5)])
        table.note("cifar100", "winner on all images, 5 seeds")
        with table.paused():
            Console(file=out, width=120).print("another display")
        plain = Console(file=io.StringIO(), width=120)
        plain.print(table.table())
        table.tested("cifar100", {"test_top1": 71.234, "test_top1_std": 0.5})
    return plain.file.getvalue(), out.getvalue()


def test_a_terminal_sees_a_table():
    table, screen = show(True)
    row = next(line for line in table.splitlines() if "cifar100" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[:6] == ["cifar100", "3 / 40", "1", "62.5 %", "0.25", "0.001"]
    assert "winner on all images" in cells[6]
    assert "50 %, 1,234 images/s" in screen and "test 71.23 % +- 0.50" in screen
    assert "0 / 40" in screen and "another display" in screen


def test_elsewhere_a_line_per_cohort(capsys):
    _, screen = show(False)
    assert screen == "another display\n"
    assert capsys.readouterr().err.splitlines() == [
        "cifar100: 2 of 40 trials, best 60.0 %",
        "cifar100: 3 of 40 trials, best 62.5 %",
        "cifar100: winner on all images, 5 seeds",
    ]
