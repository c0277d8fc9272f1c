"""Comparing two methods over the tasks that both have results of."""

import dataclasses
import warnings

import numpy as np
from scipy import stats

MIN_TASKS = 2  # a paired test of one pair has no answer


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Method A against method B.

    Attributes:
        tasks: Pairs compared.
        wins: Tasks where A is better.
        difference: Mean of A - B in points.
        t_test, wilcoxon: Two-sided p values, paired; None without enough tasks or
            where all differences are equal.
    """

    tasks: int
    wins: int
    difference: float
    t_test: float | None
    wilcoxon: float | None


def compare(a: dict[str, float], b: dict[str, float]) -> Comparison | None:
    """Compare top-1 by task; None where no task is common."""
    common = [task for task in a if task in b]
    if not common:
        return None
    x, y = (np.array([side[task] for task in common]) for side in (a, b))
    gaps = x - y
    t_test = wilcoxon = None
    if len(common) >= MIN_TASKS and np.ptp(gaps) > 0:
        t_test = float(stats.ttest_rel(x, y).pvalue)
        with warnings.catch_warnings():  # of few pairs and ties
            warnings.simplefilter("ignore")
            wilcoxon = float(stats.wilcoxon(x, y).pvalue)
    return Comparison(
        len(common), int((gaps > 0).sum()), float(gaps.mean()), t_test, wilcoxon
    )
