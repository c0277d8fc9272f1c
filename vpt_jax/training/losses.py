"""Cross-entropy as the public code computes it (`src/solver/losses.py:65-67`)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from vpt_jax.types import widened

CLASS_WEIGHTS = {"none": 0.0, "inv": -1.0, "inv_sqrt": -0.5}


def cross_entropy(
    logits: Float[Array, "B C"],
    labels: Int[Array, " B"],
    mask: Float[Array, " B"],
    class_weights: Float[np.ndarray, " C"] | None = None,
) -> Float[Array, ""]:
    """Sum over the rows that count, weighted by class, divided by their number."""
    log_p = jax.nn.log_softmax(widened(logits))
    of_label = jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
    if class_weights is not None:
        of_label *= jnp.asarray(class_weights, log_p.dtype)[labels]
    return -jnp.sum(of_label * mask) / jnp.sum(mask)


def class_weights(
    kind: str, labels: Int[np.ndarray, " n"], num_classes: int
) -> Float32[np.ndarray, " C"]:
    """Weights against class imbalance: a power of each class's number of images.

    Their mean over the classes that occur is 1; a class without images has 0. Fixed:
    the public code counts each class once (`src/data/datasets/json_dataset.py:93-104`),
    so its weights are all 1.

    Args:
        kind: A key of `CLASS_WEIGHTS`.
        labels: Of the training images.
        num_classes: C.
    """
    counts = np.bincount(labels, minlength=num_classes).astype(np.float64)
    weights = np.zeros(num_classes)
    present = counts > 0
    weights[present] = counts[present] ** CLASS_WEIGHTS[kind]
    return (weights / weights[present].mean()).astype(np.float32)
