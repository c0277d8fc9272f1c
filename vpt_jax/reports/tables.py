"""The tables of a report: what is compared, and beside what.

A table is there where it says what no other does: means where a group has two tasks,
costs apart from scores where a method has two.
"""

from collections.abc import Callable

import numpy as np

from vpt_jax import data
from vpt_jax.reports import paper, result
from vpt_jax.reports.collect import Comparison, Run
from vpt_jax.reports.table import Column, Table, build, number

VTAB = ("natural", "specialized", "structured")
GROUPS = (*VTAB, "VTAB", "fgvc", "embedded", "own")
FAILED = {"*": "*: without the seeds that failed, listed below."}
_MEANS = FAILED | {
    "[": "In square brackets: tasks, where a group is not complete.",
    "(": "In parentheses: tasks better than Full.",
}
_TOTAL = "Total: 1 + tuned parameters of all these tasks / backbone."
_SECONDS = "Seconds: of the final runs, all seeds together."


def published(run: Run) -> float | None:
    """The paper's score of the same task."""
    return paper.score(run.backbone, run.method, run.task, run.metric)


def score(value: float | None, metric: str, signed: bool = False) -> str:
    """With the decimals of its metric."""
    return number(value, result.digits(metric), signed)


def mean(runs: list[Run]) -> float:
    """Of the scores."""
    return float(np.mean([run.score for run in runs]))


def mark(runs: list[Run]) -> str:
    """The star of a number that failed seeds are missing from."""
    return "*" * any(run.failed for run in runs)


# ---- a row for each run


def tasks(comparison: Comparison) -> Table:
    """Every task beside the paper's figure; of a single task with the costs."""
    metric, runs = comparison.metric, list(comparison.runs)
    deviation = ", mean ± population deviation over seeds"
    several = any(run.std is not None for run in runs)
    columns = [
        Column[Run]("method", lambda run: run.method, left=True),
        Column[Run]("task", lambda run: run.task, left=True),
        Column[Run]("ours", lambda run: _with_deviation(run)),
        Column[Run]("seeds", lambda run: run.count),
        Column[Run]("paper", lambda run: number(published(run), 1)),
        Column[Run]("difference", lambda run: score(_gap(run), metric, signed=True)),
        Column[Run](
            "val",
            lambda run: score(run.validation, metric),
            "Val: on the validation images, of a sweep its winner's.",
        ),
        Column[Run]("test images", lambda run: f"{run.result['n_test']:,}"),
    ]
    if len(comparison.tasks) == 1:
        columns += _costs_of_run()
    columns.append(
        Column[Run](
            "source", _source, "Source: where the paper's figure was read.", left=True
        )
    )
    note = f"Test {result.label(metric)} after the last epoch" + deviation * several
    place, title = f"tasks_{comparison.place}", f"Tasks, {comparison.backbone}"
    return build(place, title, columns, runs, f"{note}.", FAILED)


def scores(comparison: Comparison) -> Table | None:
    """Methods by tasks; None without two of each."""
    if len(comparison.tasks) < 2 or len(comparison.methods) < 2:
        return None
    Row = Column[list[Run]]
    columns = [
        Row("method", lambda runs: runs[0].method, left=True),
        Row("tuned [%]", _average("tuned_percent", 3), "Tuned: mean over tasks."),
        *(Row(task, _of_task(task)) for task in comparison.tasks),
    ]
    note = f"Test {result.label(comparison.metric)}"
    if any(run.std is not None for run in comparison.runs):
        note += ", mean ± population deviation over seeds"
    place, title = f"scores_{comparison.place}", f"Scores, {comparison.backbone}"
    rows = comparison.methods.values()
    return build(place, title, columns, rows, f"{note}.", FAILED)


def _of_task(task: str) -> Callable[[list[Run]], str]:
    """A cell: the score of one of these runs."""
    return lambda runs: next((_with_deviation(r) for r in runs if r.task == task), "-")


def _source(run: Run) -> str:
    known = published(run) is not None
    return paper.source(run.backbone, run.method, run.task) if known else ""


def _with_deviation(run: Run) -> str:
    deviation = "" if run.std is None else f" ± {score(run.std, run.metric)}"
    return score(run.score, run.metric) + deviation + mark([run])


def _gap(run: Run) -> float | None:
    known = published(run)
    return None if known is None else run.score - known


def _costs_of_run() -> list[Column[Run]]:
    return [
        Column(
            "tuned parameters", lambda run: number(run.result["trainable_params"], 0)
        ),
        Column("tuned [%]", lambda run: number(run.result["tuned_percent"], 3)),
        Column(
            "train [s]", lambda run: number(run.result["train_seconds"], 1), _SECONDS
        ),
        Column("peak memory [GB]", lambda run: _peak_memory([run])),
    ]


# ---- a row for each method


def costs(comparison: Comparison) -> Table | None:
    """Parameters, bytes and seconds; None for a single task."""
    if len(comparison.tasks) == 1:
        return None

    ratios = paper.ratios(comparison.backbone)
    columns = [
        Column[list[Run]]("method", lambda runs: runs[0].method, left=True),
        Column[list[Run]]("tasks", lambda runs: str(len(runs))),
        Column[list[Run]]("tuned parameters", _average("trainable_params", 0)),
        Column[list[Run]]("tuned [%]", _average("tuned_percent", 3)),
        Column[list[Run]]("total", lambda runs: f"{_total(runs):.3f}x", _TOTAL),
        Column[list[Run]](
            "paper, 24",
            lambda runs: number(ratios.get(runs[0].method), 2),
            "The paper's total is over its 24 tasks.",
        ),
        Column[list[Run]]("bytes per task", _average("tuned_bytes", 0)),
        Column[list[Run]]("train [s]", _average("train_seconds", 1), _SECONDS),
        Column[list[Run]]("peak memory [GB]", _peak_memory),
    ]
    return build(
        f"costs_{comparison.place}",
        f"Costs, {comparison.backbone}",
        columns,
        comparison.methods.values(),
        "Means over tasks.",
    )


def _average(key: str, digits: int) -> Callable[[list[Run]], str]:
    """A cell: the mean of a number of result.json."""
    return lambda runs: number(float(np.mean([r.result[key] for r in runs])), digits)


def _peak_memory(runs: list[Run]) -> str:
    return number(max(run.result["peak_memory_bytes"] for run in runs) / 1e9, 2)


def _total(runs: list[Run]) -> float:
    """Parameters of all these tasks together, in backbones."""
    size = runs[0].result["backbone_params"]
    tuned = sum(run.result["trainable_params"] for run in runs) / size
    return tuned if runs[0].method == "full" else 1 + tuned  # full shares no backbone


# ---- means over groups of tasks


def summary(comparison: Comparison) -> Table | None:
    """Group means as in the paper's tables 1 to 5, and the paper's below each.

    None where no group has two tasks: then it would repeat the tasks.
    """
    groups = [g for g in GROUPS if _is_mean(comparison, g)]
    if not groups:
        return None
    place, title = f"summary_{comparison.place}", f"Methods, {comparison.backbone}"
    note = f"Test {result.label(comparison.metric)}, mean over tasks."
    if any(published(run) is not None for run in comparison.runs):
        note += " The paper's is over the same (its printed mean where all are there)."
    methods = comparison.methods
    if len(groups) == 1:
        columns = _of_group(comparison, groups[0])
        return build(place, title, columns, methods, note, _MEANS)
    columns = _of_groups(comparison, groups)
    rows = [(method, whose) for method in methods for whose in _WHOSE]
    said = [row for row in rows if any(c.cell(row) != "-" for c in columns[2:])]
    return build(place, title, columns, said, note, _MEANS)


def _of_group(comparison: Comparison, group: str) -> list[Column[str]]:
    """A row for each method: its mean, the paper's and the difference."""
    columns = [Column[str]("method", str, left=True)]
    for whose, cell in _WHOSE.items():
        name = group if whose == "ours" else whose
        columns.append(Column(name, lambda m, cell=cell: cell(comparison, m, group)))
    return columns


def _of_groups(
    comparison: Comparison, groups: list[str]
) -> list[Column[tuple[str, str]]]:
    """A row for each method and whose means they are, a column for each group."""
    Row = Column[tuple[str, str]]
    columns = [
        Row("method", lambda row: row[0], left=True),
        Row("mean", lambda row: row[1], left=True),
    ]
    for group in groups:
        cell = lambda row, g=group: _WHOSE[row[1]](comparison, row[0], g)  # noqa: E731
        columns.append(Row(group, cell))
    return columns


def _is_mean(comparison: Comparison, group: str) -> bool:
    """Whether a method has two tasks there."""
    return any(len(_inside(comparison, m, group)) > 1 for m in comparison.methods)


def _inside(comparison: Comparison, method: str, group: str) -> list[Run]:
    """The runs of a method in a group; VTAB is three of them, and needs two."""
    runs = comparison.methods[method]
    if group != "VTAB":
        return [run for run in runs if run.group == group]
    inside = [run for run in runs if run.group in VTAB]
    return inside if len({run.group for run in inside}) > 1 else []


def _ours(comparison: Comparison, method: str, group: str) -> str:
    runs = _inside(comparison, method, group)
    if not runs:
        return "-"
    size = _size(group)
    part = f" [{len(runs)} of {size}]" if len(runs) < size else ""
    text = score(mean(runs), comparison.metric) + mark(runs)
    full = {run.task: run.score for run in comparison.methods.get("full", [])}
    return (
        text + _wins([(r.score, full.get(r.task)) for r in runs], method, runs) + part
    )


def _papers(comparison: Comparison, method: str, group: str) -> str:
    runs = _inside(comparison, method, group)
    found = _published_mean(runs, method, group)
    if found is None:
        return "-"
    pairs = [
        (published(r), paper.score(r.backbone, "full", r.task, r.metric)) for r in runs
    ]
    return number(found) + _wins(pairs, method, runs)


def _difference(comparison: Comparison, method: str, group: str) -> str:
    """Only where the paper has every one of the tasks."""
    runs = _inside(comparison, method, group)
    found = _published_mean(runs, method, group)
    if found is None or any(published(run) is None for run in runs):
        return "-"
    return number(mean(runs) - found, signed=True)


_WHOSE = {"ours": _ours, "paper": _papers, "difference": _difference}


def _wins(pairs: list[tuple], method: str, runs: list[Run]) -> str:
    """' (4)': pairs of a score and Full's where the first is better."""
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    if method == "full" or not known:
        return ""
    return f" ({sum(runs[0].sign * (a - b) > 0 for a, b in known)})"


def _published_mean(runs: list[Run], method: str, group: str) -> float | None:
    """Over the same tasks: as printed where all of the group are there."""
    if not runs:
        return None
    if len(runs) == _size(group):
        printed = paper.score(runs[0].backbone, method, group, runs[0].metric)
        if printed is not None:
            return printed
    known = [score for score in map(published, runs) if score is not None]
    return float(np.mean(known)) if known else None


def _size(group: str) -> int:
    """Tasks of a group; 0 of one that anybody may add to."""
    parts = VTAB if group == "VTAB" else (group,)
    return sum(len(data.GROUPS[part]) for part in parts if part in data.GROUPS)
