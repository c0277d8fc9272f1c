"""Choosing the winner; the only way from a sweep to test images.

`TuningImages` is all that the grid sees of a task, and it has no test images.
A `Selection` is made by `select` alone, from a complete grid.
"""

import dataclasses
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from vpt_jax.data.source import Source
from vpt_jax.errors import UserError
from vpt_jax.objectives import validation


@dataclasses.dataclass(frozen=True)
class TuningImages:
    """The images that the grid may use.

    Attributes:
        train, val: Trained on, and scored for the selection.
    """

    train: Source
    val: Source


@dataclasses.dataclass(frozen=True)
class Selection:
    """The grid point that is run on all training images.

    Attributes:
        unit: Name of its unit.
        label: What sets that unit apart.
        lr, base_lr, weight_decay: Of the point.
        validation: Score on those images after the last epoch, mean over seeds.
        ties: Points with the same score, itself included.
        trials, failed: How many were run, and how many of them failed.
    """

    unit: str
    label: str
    lr: float
    base_lr: float
    weight_decay: float
    validation: float
    ties: int
    trials: int
    failed: int


def select(records: Iterable[dict], task: str, objective: ModuleType) -> Selection:
    """The best point by the primary validation score after the last epoch.

    Ties go to the smaller learning rate, then to the smaller weight decay (the public
    code leaves those to the order of files), then to the earlier unit. A point counts
    where all its seeds finished.

    Raises:
        UserError: No point has finished.
    """
    points: dict[tuple, list[dict]] = {}
    records = list(records)
    for record in records:
        key = record["lr"], record["weight_decay"], record["unit"]
        points.setdefault(key, []).append(record)
    rank, key_of = validation(objective), f"val_{objective.METRIC}"
    scores = {
        key: sum(map(rank, runs)) / len(runs)
        for key, runs in points.items()
        if all(r["status"] == "ok" for r in runs)
    }
    failed = [r for r in records if r["status"] != "ok"]
    if not scores:
        reasons = sorted({r["status"] for r in failed})
        raise UserError(
            f"all {len(records)} trials of {task} failed ({reasons[0]}); try smaller "
            "sweep.base_lrs in another --workdir"
        )
    best = max(scores.values())
    tied = sorted(key for key, score in scores.items() if score == best)
    winner = points[tied[0]][0]
    return Selection(
        unit=winner["unit"],
        label=winner["label"],
        lr=winner["lr"],
        base_lr=winner["base_lr"],
        weight_decay=winner["weight_decay"],
        validation=sum(r[key_of] for r in points[tied[0]]) / len(points[tied[0]]),
        ties=len(tied),
        trials=len(records),
        failed=len(failed),
    )


def survivors(
    records: Iterable[dict], count: int, rank: Callable[[dict], Any]
) -> list[int]:
    """Positions in their unit of the best `count` trials, in the unit's order.

    `rank` is highest for the best; `objectives.validation` makes one.
    """
    ranked = sorted(
        (r for r in records if r["status"] == "ok"),
        key=lambda r: (rank(r), -r["lr"], -r["weight_decay"], -r["position"]),
        reverse=True,
    )
    return sorted(r["position"] for r in ranked[:count])
