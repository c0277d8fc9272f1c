"""Learning-rate schedule and optimizers whose lr and decay are traced per trial.

Source of the protocol: `src/solver/lr_scheduler.py` and `src/solver/optimizer.py` of
the public code.
"""

import functools
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vpt_jax.types import Path, Tree

POWER = 0.9  # of the schedule 'poly'
OPTIMIZERS = ("sgd", "adamw", "adamw_public")
SCHEDULES = ("epoch", "step", "poly")


class Hyper(NamedTuple):
    """What may differ between trials; arrays of shape (T,), or their shapes."""

    lr: Any  # peak learning rate, already scaled by the batch size
    weight_decay: Any  # coupled for SGD, decoupled for AdamW
    seed: Any  # initialisation, order of the images, dropout


def lr_multiplier(epoch, *, epochs: int, warmup_epochs: int | float):
    """Linear warm-up from 0, then half a cosine; epochs may be fractional.

    The public code evaluates it once per epoch, so that its first epoch has lr 0.
    """
    warm = epoch / (warmup_epochs or 1)
    progress = (epoch - warmup_epochs) / max(epochs - warmup_epochs, 1)
    cosine = 0.5 * (1 + jnp.cos(jnp.pi * progress))
    return jnp.where(epoch < warmup_epochs, warm, cosine)


def make_schedule(
    name: str,
    *,
    steps_per_epoch: int,
    epochs: int,
    warmup_epochs: int | float,
    min_lr: float = 0.0,
) -> Callable:
    """(peak, step) to the learning rate of that step.

    Args:
        name: 'epoch': `lr_multiplier`, evaluated once per epoch as in the public code;
            'step': at every step; 'poly': (peak - min_lr) (1 - step / all)^0.9 + min_lr
            at every step, as mmsegmentation's. A peak below `min_lr` stays as it is.
        steps_per_epoch, epochs, warmup_epochs: Of the run; 'poly' has no warm-up.
        min_lr: The lowest rate of 'poly', whatever the peak is.
    """

    def poly(peak, step):
        least = jnp.minimum(peak, min_lr)
        left = 1 - step / (epochs * steps_per_epoch)
        return (peak - least) * left**POWER + least

    def cosine(peak, step):
        epoch = step // steps_per_epoch
        when = step / steps_per_epoch if name == "step" else epoch
        return peak * lr_multiplier(when, epochs=epochs, warmup_epochs=warmup_epochs)

    return poly if name == "poly" else cosine


def make_optimizer(
    name: str, momentum: float, final_biases: Collection[Path] = ()
) -> Callable[..., optax.GradientTransformation]:
    """An optimizer as a function of the present lr, the weight decay and, where it is
    another one, the lr of the head (not with 'adamw_public').

    Args:
        name: 'sgd': momentum, decay added to the gradient first (coupled), on all but
            the `final_biases` (`optimizer.py:60`). 'adamw': optax's, decay as
            configured, none on biases and norms, as the public code meant (`:39-45`).
            'adamw_public': the public code's, which decays norm weights, by 0.01
            whatever is configured; see `_adamw_public`.
        momentum: For SGD.
        final_biases: Paths of the heads' last biases.
    """
    if name == "sgd":
        mask = _mask(lambda path: path not in final_biases)
        return lambda lr, weight_decay, head_lr=None: optax.chain(
            optax.add_decayed_weights(weight_decay, mask),
            optax.trace(momentum),
            _descend(lr, head_lr),
        )
    if name == "adamw":
        mask = _mask(lambda path: path[-1] not in ("bias", "scale"))
        return lambda lr, weight_decay, head_lr=None: optax.chain(
            optax.scale_by_adam(),
            optax.add_decayed_weights(weight_decay, mask),
            _descend(lr, head_lr),
        )
    mask = _mask(lambda path: path[-1] != "bias")
    return lambda lr, weight_decay, head_lr=None: _adamw_public(lr, mask)


def _descend(lr, head_lr) -> optax.GradientTransformation:
    """Minus the update times its learning rate."""
    if head_lr is None:
        return optax.scale(-lr)

    def scaled(updates, params=None):
        del params
        return jax.tree_util.tree_map_with_path(
            lambda path, x: (-head_lr if path[0].key == "head" else -lr) * x, updates
        )

    return optax.stateless(scaled)


def _mask(decays: Callable[[Path], bool]) -> Callable[[Tree], Tree]:
    """A tree's leaves to whether they are decayed, by their paths."""

    def of(tree: Tree) -> Tree:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: decays(tuple(entry.key for entry in path)), tree
        )

    return of


class _AdamState(NamedTuple):
    count: jax.Array
    mean: Tree
    square: Tree


def _adamw_public(lr, mask, b1=0.9, b2=0.999, eps=1e-6, decay=0.01):
    """The public code's AdamW (`src/solver/optimizer.py:43,206-232`).

    Differs from optax: `eps` joins sqrt(v) before the bias correction, and the decay,
    fixed at 0.01, multiplies the weights that the step has already moved.
    """

    def init(params):
        zeros = functools.partial(jax.tree.map, jnp.zeros_like)
        return _AdamState(jnp.zeros((), jnp.int32), zeros(params), zeros(params))

    def update(grads, state, params=None):
        count = state.count + 1
        mean = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mean, grads)
        square = jax.tree.map(
            lambda v, g: b2 * v + (1 - b2) * g**2, state.square, grads
        )
        step = lr * jnp.sqrt(1 - b2**count) / (1 - b1**count)

        def move(param, m, v, decayed):
            moved = param - step * m / (jnp.sqrt(v) + eps)
            return moved * (1 - lr * decay * decayed) - param

        updates = jax.tree.map(move, params, mean, square, mask(params))
        return updates, _AdamState(count, mean, square)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]
