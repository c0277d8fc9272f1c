"""What trials are worth on labelled images: every score, and the loss."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float

from vpt_jax import parallel
from vpt_jax.data.source import Source
from vpt_jax.network import Network
from vpt_jax.training import inputs, pixels, programs
from vpt_jax.types import Tree


class Judged(NamedTuple):
    """The scores of each trial by name; the mean loss of each, None where it is not
    finite or unknown; and the primary score of several together, or None."""

    scores: list[dict]
    losses: list[float | None]
    together: float | None = None


def judge(
    network: Network,
    mesh: Mesh,
    tuned: tuple[Tree, Tree],
    frozen: Tree,
    source: Source,
    *,
    class_weights: Float[np.ndarray, " C"] | None = None,
    alive: Bool[np.ndarray, " T"] | None = None,
) -> Judged:
    """Score trials.

    Args:
        network, mesh: What is scored, and where.
        tuned: (trainable, stats), with a trial axis.
        frozen: On the devices.
        source: The images.
        class_weights: Of the loss; None: it is not asked for.
        alive: Trials that are scored together as well, where they are several.
    """
    if network.objective.DENSE:
        several = alive is not None and network.inference.several
        return _judge_pixels(network, mesh, tuned, frozen, source, several)
    objective, targets = network.objective, source.labels
    run = programs.make_outputs(network, mesh)
    outputs = predict(network, run, tuned, frozen, source)
    scores = [objective.score(one, targets) for one in outputs]
    losses: list[float | None] = [None] * len(outputs)
    together = None
    if class_weights is not None:
        found = np.asarray(_losses(objective, outputs, targets, class_weights))
        losses = [x if math.isfinite(x) else None for x in found.tolist()]
    if alive is not None and len(alive) > 1 and alive.any():
        joined = objective.together(outputs[alive])
        together = objective.score(joined, targets)[objective.METRIC]
    return Judged(scores, losses, together)


def predict(
    network: Network,
    outputs: Callable,
    tuned: tuple[Tree, Tree],
    frozen: Tree,
    examples: Source,
    batch: int = inputs.BATCH,
) -> Float[np.ndarray, "T n ..."]:
    """Outputs of all trials for all images, in batches of one size.

    `tuned` is (trainable, stats), with a trial axis.
    """
    started = (
        (size, outputs(*tuned, frozen, raw))
        for _, size, raw in inputs.batches(network, examples, batch)
    )
    parts = [parallel.fetch(out)[:, :size] for size, out in inputs.behind(started)]
    return np.concatenate(parts, axis=1)


@functools.partial(jax.jit, static_argnums=0)
def _losses(objective, outputs, targets, class_weights):
    """(T,) mean losses of outputs (T, n, ...)."""

    def one(outputs):
        total, size = objective.loss(
            outputs, targets, jnp.ones(len(targets)), class_weights
        )
        return total / size

    return jax.vmap(one)(outputs)


def _judge_pixels(network, mesh, tuned, frozen, source, several: bool) -> Judged:
    """By counts of pixels, which add up over images."""
    scores = _scores_of_pixels(network, mesh, tuned, frozen, source, False)
    if several:
        more = _scores_of_pixels(network, mesh, tuned, frozen, source, True)
        metric = network.objective.METRIC
        pairs = zip(scores, more, strict=True)
        scores = [one | {f"{metric}_several": other[metric]} for one, other in pairs]
    return Judged(scores, [None] * len(scores))


def _scores_of_pixels(network, mesh, tuned, frozen, source, several) -> list[dict]:
    objective, classes = network.objective, network.num_classes
    total: np.ndarray | int = 0
    for image, labels in pixels.labelled(
        *(network, mesh, tuned, frozen, source), several
    ):
        targets = image[..., 3]
        total += np.stack([objective.counts_of(x, targets, classes) for x in labels])
    return [objective.score(counts) for counts in np.asarray(total)]
