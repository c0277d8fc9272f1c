"""One training step of one trial: the loss, its gradient, the update.

`programs` runs it for all trials at once, in chunks of many steps.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from vpt_jax import parallel
from vpt_jax.model import Model
from vpt_jax.network import Network
from vpt_jax.training.optim import Hyper
from vpt_jax.training.setup import Setup
from vpt_jax.types import Tree


class State(NamedTuple):
    """What training changes; every leaf has the leading axis T outside of a step."""

    trainable: Tree
    stats: Tree
    opt_state: Tree
    alive: jax.Array  # (T,) bool: no loss or gradient has been infinite or NaN
    loss: jax.Array  # (T, epochs): sum over the images of an epoch
    counted: jax.Array  # (T, epochs, ...): sum of what the objective counts in passing


class Batch(NamedTuple):
    """What a step reads: images or cached activations, their targets, and 1 or 0 for
    rows that count or only fill up; each with the leading axis B."""

    x: jax.Array
    targets: jax.Array
    mask: jax.Array


def train_step(
    setup: Setup, mesh: Mesh, state: State, hyper: Hyper, frozen: Tree, batch: Batch, n
) -> State:
    """The state of one trial after step `n`; unchanged once the trial has diverged."""
    epoch = n // setup.steps_per_epoch
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(hyper.seed), 2), n)
    loss_of = functools.partial(loss_and_more, setup, mesh)
    (loss, (stats, size, counted)), grads = jax.value_and_grad(loss_of, has_aux=True)(
        state.trainable, state.stats, frozen, batch, key
    )

    rates = [setup.learning_rate(hyper.lr, n)]
    if setup.head_multiplier != 1:
        rates.append(setup.learning_rate(hyper.lr * setup.head_multiplier, n))
    lr, *of_head = rates
    optimizer = setup.make_optimizer(lr, hyper.weight_decay, *of_head)
    with jax.named_scope("optimizer"):
        updates, opt_state = optimizer.update(grads, state.opt_state, state.trainable)
    trainable = optax.apply_updates(state.trainable, updates)

    # They can overflow before the loss does: what is exported stays finite.
    norm = optax.tree.norm((grads, trainable))
    alive = state.alive & jnp.isfinite(loss) & jnp.isfinite(norm)
    moved = trainable, stats, opt_state
    trainable, stats, opt_state = jax.tree.map(
        functools.partial(jnp.where, alive), moved, state[:3]
    )
    return State(
        trainable=trainable,
        stats=stats,
        opt_state=opt_state,
        alive=alive,
        loss=state.loss.at[epoch].add(loss * size),
        counted=state.counted.at[epoch].add(counted),
    )


def loss_and_more(setup: Setup, mesh: Mesh, trainable, stats, frozen, batch, key):
    """(mean loss, (statistics after the batch, how much counts, the running count))."""
    network = setup.network
    model = merged(network, mesh, trainable, frozen, stats)
    outputs = model.suffix(batch.x, setup.cut, key=key, train=True, mask=batch.mask)
    _, _, _, stats = network.split(model)
    of_batch = batch.targets, batch.mask
    total, size = network.objective.loss(outputs, *of_batch, setup.class_weights)
    counted = network.objective.count(outputs, *of_batch)
    return total / size, (stats, size, counted)


def merged(network: Network, mesh: Mesh, trainable, frozen, stats) -> Model:
    """The split model as one, for a program that runs on `mesh`."""
    model = nnx.merge(network.parts[0], trainable, frozen, stats)
    if network.shard:
        model.gather = parallel.replicated(mesh)
    return model


def epoch_order(setup: Setup, seed, epoch) -> jax.Array:
    """The images of one epoch in the order of (seed, epoch), filled up with 0."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), epoch)
    order = jax.random.permutation(key, setup.num_examples)
    fill = setup.steps_per_epoch * setup.batch_size - setup.num_examples
    return jnp.pad(order, (0, fill))
