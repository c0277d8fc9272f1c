"""How many trials fit on the devices at once: what XLA says the program needs."""

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from vpt_jax import parallel
from vpt_jax.data.source import Source
from vpt_jax.training import inputs, programs
from vpt_jax.training.optim import Hyper
from vpt_jax.training.setup import Setup
from vpt_jax.types import Tree

SHARE = 0.8  # of the memory that is free; the rest is for scoring and fragmentation


def trials_at_once(setup: Setup, place: str, source: Source, num_trials: int) -> int:
    """As many of `num_trials` as the compiled program has memory for, over all devices.

    The program is compiled for all of them first, and once more for as many as fit if
    they do not, so that a grid that fits costs the one compilation that it needs.

    Args:
        setup, place: From `inputs.placed` and `inputs.decide`.
        source: The training images.
        num_trials: That are to be run.
    """
    at_once, free = num_trials, SHARE * free_bytes()
    fed = step_inputs(setup, place, source)
    while at_once > 1:
        needed = bytes_of(setup, place, fed, at_once)
        if needed <= free:
            break
        fixed = bytes_of(setup, place, fed, 1)
        per_trial = (needed - fixed) / (at_once - 1)
        at_once = min(at_once - 1, max(1, int((free - fixed) / per_trial) + 1))
    return at_once


def bytes_of(setup: Setup, place: str, fed: tuple[Tree, Tree], num_trials: int) -> int:
    """What a training step of that many trials holds on one device.

    Args:
        setup, place: From `inputs.placed` and `inputs.decide`.
        fed: From `step_inputs`.
        num_trials: T.
    """
    mesh = parallel.make_mesh(num_trials, setup.batch_size)
    trials, copies = parallel.over_trials(mesh), parallel.replicated(mesh)

    def placed(tree, sharding):
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
        )

    number = jax.ShapeDtypeStruct((num_trials,), jnp.result_type(float))
    seed = jax.ShapeDtypeStruct((num_trials,), jnp.uint32)
    hyper = placed(Hyper(number, number, seed), trials)
    init = programs.make_init(setup, mesh)
    state = placed(jax.eval_shape(init, setup.network.pretrained.params, hyper), trials)
    (images, targets), feed = fed, inputs.feed_of(place)
    if feed == "all":
        images = placed(images, copies)
    elif feed == "shared":
        images = placed(images, parallel.over_batch(mesh))
    else:
        each = jax.ShapeDtypeStruct((num_trials, *images.shape), images.dtype)
        images = placed(each, parallel.over_both(mesh))
    frozen = setup.network.parts[2]
    where = parallel.frozen_shardings(mesh, frozen, setup.network.shard)
    frozen = jax.tree.map(placed, frozen, where)
    bounds = np.int32(0), np.int32(0)
    arguments = state, frozen, images, placed(targets, copies), hyper, *bounds
    program = programs.compile_chunk(setup, mesh, feed, *arguments)
    used = program.memory_analysis()
    # The state is donated: its output takes no memory of its own.
    return used.temp_size_in_bytes + used.argument_size_in_bytes


def step_inputs(setup: Setup, place: str, source: Source) -> tuple[Tree, Tree]:
    """Shapes of what a step reads, of all images or a batch (see `inputs`), and of all
    their targets."""
    targets = jax.ShapeDtypeStruct(source.labels.shape, source.labels.dtype)
    size = setup.network.image_size
    if place == inputs.CACHED:
        return inputs.cached_shape(setup, setup.num_examples), targets
    if place == inputs.CACHED_ON_HOST:
        return inputs.cached_shape(setup, setup.batch_size), targets
    if place == inputs.STREAMED:
        shape = setup.batch_size, size, size, 3
        return jax.ShapeDtypeStruct(shape, jnp.float32), targets
    images = inputs.load(setup.network, source)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), images)
    return shapes, targets


def free_bytes() -> float:
    """On one device; on a CPU, whose devices are one memory, each its part."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return psutil.virtual_memory().available / jax.local_device_count()
