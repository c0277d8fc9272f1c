"""Loss, counts and scores of pixels against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vpt_jax.objectives import segmentation
from vpt_jax.objectives.heads import Logits

CLASSES, SIZE = 4, 12


def problem(seed=0):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, CLASSES, (3, SIZE, SIZE))
    targets[rng.random(targets.shape) < 0.2] = segmentation.IGNORED
    logits = rng.normal(size=(3, 6, 6, CLASSES)).astype(np.float32)
    others = rng.normal(size=(3, 3, 3, CLASSES)).astype(np.float32)
    return Logits(jnp.asarray(logits), (jnp.asarray(others),)), jnp.asarray(targets)


def brute_loss(logits, targets):
    """Mean over all pixels of one image; ignored ones add nothing."""
    shape = (SIZE, SIZE, CLASSES)
    full = jax.image.resize(logits, shape, "bilinear", antialias=False)
    log_p = np.asarray(jax.nn.log_softmax(full))
    total = 0.0
    for y in range(SIZE):
        for x in range(SIZE):
            if targets[y, x] != segmentation.IGNORED:
                total -= log_p[y, x, targets[y, x]]
    return total / SIZE**2


def test_the_loss_is_the_mean_over_all_pixels_of_images_that_count():
    outputs, targets = problem()
    [others] = outputs.auxiliary
    total, size = segmentation.loss(outputs, targets, jnp.array([1.0, 0.0, 1.0]))
    parts = zip(outputs.main, others, targets, strict=True)
    wanted = [brute_loss(a, t) + 0.4 * brute_loss(b, t) for a, b, t in parts]
    np.testing.assert_allclose((total, size), (wanted[0] + wanted[2], 2), rtol=1e-5)


def test_a_mask_without_any_class_has_loss_and_gradient_0():
    outputs, targets = problem()
    nothing = jnp.full_like(targets, segmentation.IGNORED)
    value = jax.value_and_grad(lambda x: segmentation.loss(x, nothing, jnp.ones(3))[0])
    loss, gradient = value(outputs)
    assert loss == 0
    assert all(np.all(np.asarray(g) == 0) for g in jax.tree.leaves(gradient))


def brute_counts(labels, targets):
    counts = np.zeros((3, CLASSES), int)
    for guess, target in zip(labels.reshape(-1), targets.reshape(-1), strict=True):
        if target != segmentation.IGNORED:
            counts[0, target] += guess == target
            counts[1, guess] += 1
            counts[2, target] += 1
    return counts


def test_counts_are_those_of_a_loop():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, CLASSES, (9, 7)).astype(np.uint8)
    targets = rng.choice([0, 1, 3, 255], (9, 7)).astype(np.uint8)
    found = segmentation.counts_of(labels, targets, CLASSES)
    np.testing.assert_array_equal(found, brute_counts(labels, targets))

    # In passing: on the grid of the logits, rows that only fill up left out.
    outputs, many = problem(2)
    mask = jnp.array([1.0, 0.0, 1.0])
    found = segmentation.count(outputs, many, mask)
    kept, seen = np.asarray(many)[[0, 2], 1::2, 1::2], outputs.main[np.array([0, 2])]
    wanted = brute_counts(np.asarray(seen.argmax(-1)), kept)
    np.testing.assert_array_equal(found, wanted)


def test_miou_is_that_of_sets_of_pixels():
    rng = np.random.default_rng(3)
    pairs = [rng.integers(0, 3, (2, 8, 8)).astype(np.uint8) for _ in range(5)]
    pairs[0][1, :2] = 255
    counts = sum(segmentation.counts_of(*pair, CLASSES) for pair in pairs)
    guesses, targets = (np.stack([p[n] for p in pairs]).reshape(-1) for n in (0, 1))
    known = targets != 255
    ious = []
    for c in range(3):
        is_guess, is_target = (guesses == c) & known, targets == c
        ious.append(100 * (is_guess & is_target).sum() / (is_guess | is_target).sum())
    found = segmentation.score(counts)
    assert found["iou"][:3] == pytest.approx(ious) and found["iou"][3] is None
    assert found["miou"] == pytest.approx(np.mean(ious))  # class 3 never occurs
    right = (guesses == targets)[known].mean()
    assert found["pixel_accuracy"] == pytest.approx(100 * right)
    assert segmentation.running(counts.tolist(), 5) == found["miou"]


def test_one_class_everywhere_is_a_guess():
    targets = np.array([[0, 0, 1, 2]], np.uint8)
    counts = segmentation.counts_of(np.zeros_like(targets), targets, 3)
    assert segmentation.guessed(segmentation.score(counts)["miou"], 3)
    assert not segmentation.guessed(50.0, 3)
