"""Who wins, and that nobody sees the test images before."""

import pytest

from vpt_jax.errors import UserError
from vpt_jax.objectives import classification, validation
from vpt_jax.sweeps.selection import select, survivors


def record(lr, decay, val_top1, position=0, unit="00", seed=42, status="ok"):
    return {
        "unit": unit,
        "label": "",
        "position": position,
        "lr": lr,
        "base_lr": 4 * lr,
        "weight_decay": decay,
        "seed": seed,
        "val_top1": val_top1,
        "status": status,
    }


def test_the_best_wins_and_ties_go_to_the_smaller_rate_then_decay():
    records = [
        record(1.0, 0.0, 80.0),
        record(0.5, 0.1, 90.0),
        record(0.1, 0.1, 90.0),
        record(0.1, 0.01, 90.0),
        record(0.1, 0.01, 90.0, unit="01"),
        record(0.01, 0.0, 89.5),
    ]
    for order in (records, records[::-1]):
        chosen = select(order, "t", classification)
        assert (chosen.lr, chosen.weight_decay, chosen.unit) == (0.1, 0.01, "00")
        assert (chosen.validation, chosen.base_lr, chosen.ties) == (90.0, 0.4, 4)


def test_failed_trials_never_win():
    records = [record(0.1, 0.0, 50.0), record(1.0, 0.0, None, status="failed: x")]
    chosen = select(records, "t", classification)
    assert (chosen.lr, chosen.trials, chosen.failed) == (0.1, 2, 1)
    with pytest.raises(UserError, match="all 1 trials of t failed .*failed: x"):
        select(records[1:], "t", classification)


def test_a_point_with_several_seeds_counts_with_its_mean():
    records = [
        *(record(0.1, 0.0, 90.0, seed=1), record(0.1, 0.0, 60.0, seed=2)),
        *(record(0.2, 0.0, 80.0, seed=1), record(0.2, 0.0, 80.0, seed=2)),
        record(0.3, 0.0, 99.0, seed=1),
        record(0.3, 0.0, None, seed=2, status="failed: x"),
    ]
    chosen = select(records, "t", classification)
    assert (chosen.lr, chosen.validation) == (0.2, 80.0)


def test_survivors():
    rank = validation(classification)
    records = [
        record(1.0, 0.0, 90.0, position=0),
        record(0.5, 0.0, 70.0, position=1),
        record(0.1, 0.0, 90.0, position=2),
        record(9.0, 0.0, None, position=3, status="failed: x"),
    ]
    assert survivors(records, 2, rank) == [0, 2]
    assert survivors(records, 1, rank) == [2]
    assert survivors(records, 4, rank) == [0, 1, 2]
