"""Cross-entropy as the public code computes it (`src/solver/losses.py:65-67`)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vpt_jax.types import widened


def cross_entropy(
    logits: Float[Array, "B C"], labels: Int[Array, " B"], mask: Float[Array, " B"]
) -> Float[Array, ""]:
    """Sum over the rows that count, divided by their number."""
    log_p = jax.nn.log_softmax(widened(logits))
    of_label = jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
    return -jnp.sum(of_label * mask) / jnp.sum(mask)
