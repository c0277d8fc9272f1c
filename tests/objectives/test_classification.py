"""Scores and loss on values worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from vpt_jax.objectives import classification
from vpt_jax.objectives.classification import score, together


def test_top1_top5_and_mean_per_class():
    logits = np.eye(6)[[0, 0, 0, 1, 2, 5]] + np.linspace(0.1, 0.6, 6) * 1e-3
    labels = np.array([0, 0, 0, 1, 0, 1])
    found = score(logits, labels)
    assert found["top1"] == pytest.approx(100 * 4 / 6)
    # Class 0: 3 of 4, class 1: 1 of 2; classes without examples do not count.
    assert found["mean_per_class"] == pytest.approx(100 * (3 / 4 + 1 / 2) / 2)
    # Row 4 ranks class 0 last; row 5 ranks class 1 fifth.
    assert found["top5"] == pytest.approx(100 * 5 / 6)
    assert found["auc"] is None


def test_constant_logits_get_no_credit_in_top5():
    assert score(np.zeros((4, 10)), np.arange(4))["top5"] == 0


def test_auc_of_two_classes():
    logits = np.array([[0, 0.1], [0, 0.4], [0, 0.35], [0, 0.8]])
    found = score(logits, np.array([0, 0, 1, 1]))
    assert found["auc"] == pytest.approx(75)
    assert found["top5"] is None
    assert score(logits, np.array([1, 1, 1, 1]))["auc"] is None


def test_loss_counts_only_the_rows_of_the_mask():
    logits = jnp.array([[2.0, 0.0], [0.0, 1.0], [9.0, 9.0]])
    labels = jnp.array([0, 0, 1])
    found = classification.loss(logits, labels, jnp.array([1.0, 1.0, 0.0]))
    wanted = np.log(1 + np.exp(-2)) + np.log(1 + np.exp(1))
    np.testing.assert_allclose(found, (wanted, 2), atol=1e-6)


def test_an_ensemble_averages_probabilities():
    """Two unsure trials that are right outvote a sure one that is wrong, or not."""
    right, sure, unsure = [0.0, 1.0], [3.0, 0.0], [0.5, 0.0]
    labels = np.array([1, 1])
    logits = np.array([[right, right], [right, right], [unsure, sure]])
    for trials, wanted in ((logits, 100), (logits[1:], 50), (1e3 + logits, 100)):
        assert score(together(trials), labels)["top1"] == wanted


def test_a_class_s_weight_multiplies_its_loss():
    logits = jnp.array([[2.0, 0.0], [0.0, 1.0]])
    weights = np.float32([3.0, 0.5])
    found = classification.loss(logits, jnp.array([0, 1]), jnp.ones(2), weights)
    wanted = 3 * np.log(1 + np.exp(-2)) + 0.5 * np.log(1 + np.exp(-1))
    np.testing.assert_allclose(found, (wanted, 2), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        ("none", [1, 1, 0, 1]),
        # 1/8, 1/2, 1/4 have the mean 7/24
        ("inv", [3 / 7, 12 / 7, 0, 6 / 7]),
        # times the root of 8: 1, 2 and the root of 2
        ("inv_sqrt", np.array([1, 2, 0, 2**0.5]) * 3 / (3 + 2**0.5)),
    ],
)
def test_class_weights_by_hand(kind, weights):
    labels = np.repeat([0, 1, 3], [8, 2, 4])
    found = classification.weights(kind, labels, 4)
    np.testing.assert_allclose(found, weights, rtol=1e-6)
    assert found.dtype == np.float32
