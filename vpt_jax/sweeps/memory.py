"""How many trials fit on the devices at once: what XLA says the program needs."""

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from vpt_jax import parallel
from vpt_jax.data.source import Source
from vpt_jax.training import inputs, step
from vpt_jax.training.optim import Hyper
from vpt_jax.training.step import Setup
from vpt_jax.types import Tree

SHARE = 0.8  # of the memory that is free; the rest is for scoring and fragmentation


def trials_at_once(setup: Setup, kind: type, source: Source, num_trials: int) -> int:
    """As many of `num_trials` as the compiled program has memory for, over all devices.

    The program is compiled for all of them first, and once more for as many as fit if
    they do not, so that a grid that fits costs the one compilation that it needs.

    Args:
        setup, kind: From `inputs.fit`.
        source: The training images.
        num_trials: That are to be run.
    """
    at_once, free = num_trials, SHARE * free_bytes()
    images = step_inputs(setup, kind, source)
    while at_once > 1:
        needed = bytes_of(setup, kind, images, at_once)
        if needed <= free:
            break
        fixed = bytes_of(setup, kind, images, 1)
        per_trial = (needed - fixed) / (at_once - 1)
        at_once = min(at_once - 1, max(1, int((free - fixed) / per_trial) + 1))
    return at_once


def bytes_of(setup: Setup, kind: type, images: Tree, num_trials: int) -> int:
    """What a training step of that many trials holds on one device.

    Args:
        setup, kind: From `inputs.fit`.
        images: From `step_inputs`.
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
    init = step.make_init(setup, mesh)
    state = placed(jax.eval_shape(init, setup.pretrained.params, hyper), trials)
    if kind is inputs.Resident:
        images = placed(images, copies)
    elif kind is inputs.Stream:
        images = placed(images, parallel.over_batch(mesh))
    else:
        each = jax.ShapeDtypeStruct((num_trials, *images.shape), images.dtype)
        images = placed(each, parallel.over_both(mesh))
    labels = jax.ShapeDtypeStruct((setup.num_examples,), jnp.int32, sharding=copies)
    frozen = setup.parts[2]
    where = parallel.frozen_shardings(mesh, frozen, setup.shard)
    frozen = jax.tree.map(placed, frozen, where)
    bounds = np.int32(0), np.int32(0)
    arguments = state, frozen, images, labels, hyper, *bounds
    program = step.compile_chunk(setup, mesh, kind.reads, *arguments)
    used = program.memory_analysis()
    # The state is donated: its output takes no memory of its own.
    return used.temp_size_in_bytes + used.argument_size_in_bytes


def step_inputs(setup: Setup, kind: type, source: Source) -> Tree:
    """Shapes of what the step reads: of all images, or a batch (see `inputs`)."""
    size = setup.image_size
    count = setup.num_examples if kind is inputs.Resident else setup.batch_size
    if setup.cut:
        one = jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)
        prefix = step.make_prefix(setup, parallel.make_mesh(1, jax.device_count()))
        out = jax.eval_shape(prefix, setup.parts[2], one)
        return jax.ShapeDtypeStruct((count, *out.shape[1:]), out.dtype)
    if kind is inputs.Stream:
        return jax.ShapeDtypeStruct((count, size, size, 3), jnp.float32)
    images = inputs.load(setup, source)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), images)


def free_bytes() -> float:
    """On one device; on a CPU, whose devices are one memory, each its part."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return psutil.virtual_memory().available / jax.local_device_count()
