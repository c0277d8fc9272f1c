"""Tests of significance against other ways to compute them."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from vpt_jax import data
from vpt_jax.reports import paper
from vpt_jax.reports.statistics import over_seeds, over_tasks, welch


def by_task(values):
    return dict(zip(map(str, range(len(values))), map(float, values), strict=True))


def signed_rank_p(gaps):
    """P(W+ >= observed) over all 2^n signs of the ranks."""
    ranks = np.abs(gaps).argsort().argsort() + 1
    observed = ranks[np.asarray(gaps) > 0].sum()
    signs = itertools.product((0, 1), repeat=len(gaps))
    return np.mean([np.dot(sign, ranks) >= observed for sign in signs])


def t_tail(t, freedom, steps=200_000):
    """P(T > t) of Student's t, by the trapezoid rule on its density."""
    scale = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2)
    scale /= math.sqrt(freedom * math.pi)
    x = np.linspace(0, abs(t), steps)
    density = scale * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
    half = 0.5 - float(np.trapezoid(density, x))
    return half if t > 0 else 1 - half


def test_paired_tests_are_scipys():
    x, y = np.random.default_rng(0).normal(size=(2, 19))
    a, b = by_task(x), by_task(y)
    found = over_tasks(a, b)
    assert found.t_test == stats.ttest_rel(x, y).pvalue
    assert found.wilcoxon == stats.wilcoxon(x, y).pvalue
    assert found.wins == (x > y).sum()
    assert found.difference == pytest.approx((x - y).mean())
    assert over_tasks(a, {"other": 1.0}) is None
    alone = over_tasks({"0": 2.0}, {"0": 1.0})
    assert (alone.tasks, alone.wins, alone.t_test, alone.wilcoxon) == (1, 1, None, None)
    assert over_tasks({"0": 2.0, "1": 3.0}, {"0": 1.0, "1": 2.0}).t_test is None


def test_the_one_sided_signed_rank_test_counts_signs():
    x, y = np.random.default_rng(1).normal(size=(2, 8)) + [[0.8], [0.0]]
    better = over_tasks(by_task(x), by_task(y)).wilcoxon_better
    assert better == pytest.approx(signed_rank_p(x - y), abs=1e-12)
    # ---- where lower scores are better, the other way round
    worse = over_tasks(by_task(x), by_task(y), sign=-1)
    assert worse.wilcoxon_better == pytest.approx(signed_rank_p(y - x), abs=1e-12)
    assert worse.wins == (x < y).sum()


@pytest.mark.parametrize("other", ["mlp-3", "sidetune"])
def test_it_is_the_papers_test(other):
    """The published figures of these two give the published p values: all 19 higher."""
    a, b = (
        {task: paper.score("vit_b16", m, task, "top1") for task in data.GROUPS["all"]}
        for m in ("vpt-deep", other)
    )
    p = over_tasks(a, b).wilcoxon_better
    assert p == 2**-19
    printed = paper.tests("vit_b16", "vpt-deep", other, "top1").wilcoxon
    assert p == pytest.approx(printed, rel=0.01)


def test_welch_by_hand():
    """Means 2 and 4, variances 1 and 4, three each: t = -2 / sqrt(5 / 3)."""
    t = -2 / math.sqrt(5 / 3)
    freedom = (5 / 3) ** 2 / ((1 / 3) ** 2 / 2 + (4 / 3) ** 2 / 2)
    better, worse = welch([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert better == pytest.approx(t_tail(t, freedom), abs=1e-8)
    assert worse == pytest.approx(t_tail(-t, freedom), abs=1e-8)
    lower = welch([1.0, 2.0, 3.0], [2.0, 4.0, 6.0], sign=-1)
    assert lower == pytest.approx((worse, better), abs=1e-12)
    assert welch([1.0], [2.0, 3.0]) is None
    assert welch([1.0, 1.0], [2.0, 2.0]) is None


def test_tasks_where_seeds_tell_methods_apart():
    a = {"up": [9.0, 9.1, 9.2], "down": [1.0, 1.1, 1.2], "same": [5.0, 6.0, 7.0]}
    b = {"up": [8.0, 8.1, 8.2], "down": [2.0, 2.1, 2.2], "same": [5.1, 6.2, 6.8]}
    found = over_seeds(a | {"one": [1.0]}, b | {"one": [2.0, 3.0], "b only": [1.0]})
    assert found.tested == ("up", "down", "same")
    assert (found.better, found.worse) == (("up",), ("down",))
    assert over_seeds(a, b, sign=-1).better == ("down",)
