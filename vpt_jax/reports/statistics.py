"""Tests of one method against another: over tasks, and on each task over seeds."""

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from scipy import stats

MIN_PAIRS = 2  # a paired test of one pair has no answer
LEVEL = 0.05


@dataclasses.dataclass(frozen=True)
class OverTasks:
    """Method A against method B over the tasks that both have a score of.

    Attributes:
        tasks: Pairs compared.
        wins: Tasks where A is better.
        difference: Mean of A - B.
        t_test, wilcoxon: Two-sided p values, paired.
        wilcoxon_better: One-sided p value of Wilcoxon's signed-rank test, as in the
            paper's table 10: small where A is better.

    The p values are None with fewer than `MIN_PAIRS` tasks or where all differences
    are equal.
    """

    tasks: int
    wins: int
    difference: float
    t_test: float | None = None
    wilcoxon: float | None = None
    wilcoxon_better: float | None = None


@dataclasses.dataclass(frozen=True)
class OverSeeds:
    """Method A against method B on each task, seeds against seeds.

    Attributes:
        tested: Tasks where both have two seeds or more, and any spread.
        better, worse: Those where A is, by Welch's t-test, one-sided either way, with
            p < `LEVEL`.
    """

    tested: tuple[str, ...]
    better: tuple[str, ...]
    worse: tuple[str, ...]


def over_tasks(
    a: dict[str, float], b: dict[str, float], sign: int = 1
) -> OverTasks | None:
    """Compare scores by task; None where no task is common.

    Args:
        a, b: Score of each task.
        sign: 1 where higher scores are better, else -1.
    """
    common = [task for task in a if task in b]
    if not common:
        return None
    x, y = (np.array([side[task] for task in common]) for side in (a, b))
    gaps = x - y
    found = OverTasks(len(common), int((sign * gaps > 0).sum()), float(gaps.mean()))
    if len(common) < MIN_PAIRS or np.ptp(gaps) == 0:
        return found
    with _quiet():
        return dataclasses.replace(
            found,
            t_test=_p(stats.ttest_rel(x, y)),
            wilcoxon=_p(stats.wilcoxon(x, y)),
            # The printed p values are multiples of 2^-19: exact, of 19 tasks.
            wilcoxon_better=_p(
                stats.wilcoxon(sign * gaps, alternative="greater", method="exact")
            ),
        )


def over_seeds(
    a: dict[str, list[float]], b: dict[str, list[float]], sign: int = 1
) -> OverSeeds:
    """Compare the scores of the seeds of each task.

    Args:
        a, b: Scores by task, one for each seed that finished.
        sign: 1 where higher scores are better, else -1.
    """
    p = {task: welch(a[task], b[task], sign) for task in a if task in b}
    known = {task: pair for task, pair in p.items() if pair is not None}
    return OverSeeds(
        tuple(known),
        tuple(task for task, (better, _) in known.items() if better < LEVEL),
        tuple(task for task, (_, worse) in known.items() if worse < LEVEL),
    )


def welch(
    a: Sequence[float], b: Sequence[float], sign: int = 1
) -> tuple[float, float] | None:
    """One-sided p values of Welch's t-test: small where A is better, where A is worse.

    None with fewer than two scores on a side, or where neither side has any spread.
    """
    if min(len(a), len(b)) < 2 or np.ptp(a) == np.ptp(b) == 0:
        return None
    x, y = sign * np.asarray(a), sign * np.asarray(b)
    with _quiet():
        better = _p(stats.ttest_ind(x, y, equal_var=False, alternative="greater"))
    return better, 1 - better


def _p(result: Any) -> float:
    return float(result.pvalue)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without SciPy's warnings of few pairs and ties."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
