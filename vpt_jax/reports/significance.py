"""Tables of tests: pairs of methods, over tasks and over seeds."""

import dataclasses
import itertools

from vpt_jax import data
from vpt_jax.reports import paper
from vpt_jax.reports.collect import Comparison, Run
from vpt_jax.reports.statistics import (
    LEVEL,
    MIN_PAIRS,
    OverSeeds,
    OverTasks,
    over_seeds,
    over_tasks,
)
from vpt_jax.reports.table import Column, Table, build
from vpt_jax.reports.tables import VTAB, score

_THE_PAPERS = "vpt-deep"  # that it tests against every other
_FEW = 5  # methods whose every pair can be read


@dataclasses.dataclass(frozen=True)
class Pair:
    """A method against an earlier one of the same comparison.

    Attributes:
        names: Of both.
        tasks: Over their common tasks; None without any.
        seeds: Over the seeds of each common task.
        paper: What was published of the two.
    """

    names: tuple[str, str]
    tasks: OverTasks | None
    seeds: OverSeeds
    paper: paper.Tests | None


def pairs(comparison: Comparison) -> list[Pair]:
    """Every two methods, the last of the paper's tables against all others first.

    Of many methods, VPT-Deep against every other, as in the paper.
    """
    found = []
    methods = comparison.methods
    names = list(itertools.combinations(reversed(methods), 2))
    if len(methods) > _FEW and _THE_PAPERS in methods:
        others = (name for name in reversed(methods) if name != _THE_PAPERS)
        names = [(_THE_PAPERS, other) for other in others]
    for a, b in names:
        ours = over_tasks(_scores(methods[a]), _scores(methods[b]), comparison.sign)
        seeds = over_seeds(_seeds(methods[a]), _seeds(methods[b]), comparison.sign)
        published = paper.tests(comparison.backbone, a, b, comparison.metric)
        found.append(Pair((a, b), ours, seeds, published))
    return found


def task_tests(comparison: Comparison) -> Table | None:
    """Paired tests of methods that have two tasks in common; None without any."""
    found = [
        (pair, pair.tasks)
        for pair in pairs(comparison)
        if pair.tasks is not None and pair.tasks.tasks >= MIN_PAIRS
    ]
    if not found:
        return None
    Row = Column[tuple[Pair, OverTasks]]
    metric = comparison.metric
    columns = [
        Row("methods", lambda row: " - ".join(row[0].names), left=True),
        Row("tasks", lambda row: str(row[1].tasks)),
        Row("mean difference", lambda row: score(row[1].difference, metric, True)),
        Row("wins", lambda row: str(row[1].wins)),
        Row("paired t", lambda row: _p(row[1].t_test)),
        Row("Wilcoxon", lambda row: _p(row[1].wilcoxon)),
        Row(
            "Wilcoxon one-sided (as in the paper)",
            lambda row: _p(row[1].wilcoxon_better),
            "One-sided: small where the first method is better.",
        ),
        Row(
            "paper's",
            _papers_p,
            "The paper's: its table 10, where all 19 tasks of VTAB-1k are there (N1).",
        ),
    ]
    note = (
        "Of VTAB-1k alone where all of it is there. Wins: tasks where the first method "
        "is better. p values of a paired t-test and of Wilcoxon's signed-rank test, "
        "two-sided unless said."
    )
    title = f"Paired tests over tasks, {comparison.backbone}"
    return build(f"tests_{comparison.place}", title, columns, found, note)


def seed_tests(comparison: Comparison) -> Table | None:
    """Welch's t-test per task; None where no two methods have seeds of one task."""
    found = [pair for pair in pairs(comparison) if pair.seeds.tested]
    if not found:
        return None
    Row = Column[Pair]
    columns = [
        Row("methods", lambda pair: " - ".join(pair.names), left=True),
        Row("tasks", lambda pair: str(len(pair.seeds.tested))),
        Row("better", lambda pair: str(len(pair.seeds.better))),
        Row("worse", lambda pair: str(len(pair.seeds.worse))),
        Row(
            "paper's better",
            lambda pair: pair.paper.welch if pair.paper else "",
            "The paper counts 127 of 152 for VPT-Deep against all eight others (N1).",
        ),
        Row("better on", lambda pair: ", ".join(pair.seeds.better), left=True),
        Row("worse on", lambda pair: ", ".join(pair.seeds.worse), left=True),
    ]
    note = (
        "Tasks where the first method is significantly better or worse: "
        f"Welch's t-test over seeds, one-sided either way, p < {LEVEL}, task by task; "
        "of VTAB-1k alone where all of it is there."
    )
    title = f"Welch t-test per task over seeds, {comparison.backbone}"
    return build(f"welch_{comparison.place}", title, columns, found, note)


def _papers_p(row: tuple[Pair, OverTasks]) -> str:
    pair, found = row
    complete = found.tasks == len(data.GROUPS["all"])
    return _p(pair.paper.wilcoxon if pair.paper and complete else None)


def _vtab(runs: list[Run]) -> list[Run]:
    """Those of VTAB-1k alone, as in the paper, where all of it is there."""
    inside = [run for run in runs if run.group in VTAB]
    return inside if len(inside) == len(data.GROUPS["all"]) else runs


def _scores(runs: list[Run]) -> dict[str, float]:
    return {run.task: run.score for run in _vtab(runs)}


def _seeds(runs: list[Run]) -> dict[str, list[float]]:
    return {run.task: run.finished for run in _vtab(runs)}


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"
