"""The head fitted to the features that the model gives before its first step.

A head starts from random weights as in the public code, and it takes epochs until they
are unlearned. Random prompts make that worse: they shrink what is left of an image in
the features, and a head that is random passes little of the loss on to the prompts. A
linear probe of those features has no learning rate and costs one pass over the images.
"""

import functools
from collections.abc import Iterable
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.errors import UserError
from vpt_jax.model import LinearHead, Model
from vpt_jax.types import Tree, widened

RANDOM, FITTED = HEAD_STARTS = ("random", "fitted")
DECAY = 0.01  # of the squared weights on features of deviation 1
ITERATIONS = 100  # of L-BFGS


def fit(
    model: Model,
    batches: Iterable,
    objective: ModuleType,
    class_weights: Float[np.ndarray, " C"],
) -> None:
    """Give the head the weights of a linear probe of the model as it is.

    Args:
        model: All of it, with the tensors that its method has added.
        batches: (normalised images, targets of those that count).
        objective, class_weights: Of the loss.

    Raises:
        UserError: The head is not a linear layer.
    """
    head = model.head
    if not isinstance(head, LinearHead):
        raise UserError(
            f"optim.head_start={FITTED} fits a linear head; this method has another "
            f"({type(head).__name__}): leave it {RANDOM}"
        )
    assert head.bias is not None  # `LinearHead` has one
    features, targets = _features(model, batches)
    mean, scale = features.mean(axis=0, keepdims=True), features.std(axis=0).mean()

    zeros = jnp.zeros_like(head.kernel[...]), jnp.zeros_like(head.bias[...])
    inputs = (features - mean) / scale, targets
    kernel, bias = _probe(objective, tuple(class_weights.tolist()), *inputs, zeros)
    head.kernel[...] = kernel / scale
    head.bias[...] = bias - (mean @ kernel)[0] / scale


def _features(model: Model, batches: Iterable) -> tuple[Array, Array]:
    """What the head is given for every image, and all targets."""

    @jax.jit
    def run(params: Tree, images: Array) -> Array:
        whole = nnx.merge(graphdef, params)
        return widened(whole.prefix(images, whole.num_pieces - 1))

    graphdef, params = nnx.split(model)
    features, targets = [], []
    for images, some in batches:
        features.append(np.asarray(run(params, images))[: len(some)])
        targets.append(some)
    return jnp.asarray(np.concatenate(features)), jnp.asarray(np.concatenate(targets))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _probe(
    objective: ModuleType,
    class_weights: tuple[float, ...],
    features: Float[Array, "n D"],
    targets: Array,
    start: tuple[Array, Array],
) -> tuple[Array, Array]:
    """(kernel, bias) with the least loss and decay; compiled once for all trials."""

    def value(weights: tuple[Array, Array]) -> Array:
        kernel, bias = weights
        outputs = features @ kernel + bias[None]
        every = jnp.ones(len(outputs), outputs.dtype)
        own = np.asarray(class_weights, np.float32)
        total, size = objective.loss(outputs, targets, every, own)
        return total / size + DECAY / 2 * jnp.sum(kernel**2)

    def improve(_, carry):
        weights, state = carry
        now, grad = value_and_grad(weights, state=state)
        rest = {"value": now, "grad": grad, "value_fn": value}
        change, state = optimizer.update(grad, state, weights, **rest)
        return optax.apply_updates(weights, change), state

    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(value)
    carry = start, optimizer.init(start)
    return jax.lax.fori_loop(0, ITERATIONS, improve, carry)[0]
