"""Long lists of cases: some stand for all of them, all run with `pytest -m slow`."""

from collections.abc import Collection, Iterable

import pytest


def shortened(cases: Iterable[str], usual: Collection[str]) -> list:
    """Parameters for all cases, those that are not usual marked as slow."""
    cases = list(cases)
    assert set(usual) <= set(cases)
    return [case if case in usual else slow(case) for case in cases]


def slow(*case):
    """Parameters of one case, marked."""
    return pytest.param(*case, marks=pytest.mark.slow)
