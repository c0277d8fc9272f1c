"""How many trials fit on the devices at once: what XLA says the program needs."""

import jax
import psutil

from vpt_jax import parallel
from vpt_jax.data.source import Source
from vpt_jax.planning import compiled
from vpt_jax.training import inputs, programs
from vpt_jax.training.setup import Setup
from vpt_jax.types import Tree

SHARE = 0.8  # of the memory that is free; the rest is for scoring and fragmentation


def trials_at_once(setup: Setup, place: str, source: Source, num_trials: int) -> int:
    """As many of `num_trials` as the compiled program has memory for, over all devices.

    Args:
        setup, place: From `inputs.placed` and `inputs.decide`.
        source: The training images.
        num_trials: That are to be run.
    """
    fed = step_inputs(setup, place, source)

    def needed(trials: int) -> int:
        return bytes_of(setup, place, fed, trials)

    return compiled.fitting(needed, num_trials, SHARE * free_bytes())


def bytes_of(setup: Setup, place: str, fed: tuple[Tree, Tree], num_trials: int) -> int:
    """What a training step of that many trials holds on one device.

    Args:
        setup, place: From `inputs.placed` and `inputs.decide`.
        fed: From `step_inputs`.
        num_trials: T.
    """
    mesh = parallel.make_mesh(num_trials, setup.batch_size)
    arguments = compiled.chunk_arguments(setup, mesh, place, fed, num_trials)
    # Kept, for training to find it.
    feed = inputs.feed_of(place)
    return compiled.bytes_of(programs.compile_chunk(setup, mesh, feed, *arguments))


def step_inputs(setup: Setup, place: str, source: Source) -> tuple[Tree, Tree]:
    """Shapes of what a step reads, of all images or a batch (see `inputs`), and of all
    their targets."""
    targets = jax.ShapeDtypeStruct(source.labels.shape, source.labels.dtype)
    if place == inputs.CACHED:
        return inputs.cached_shape(setup, setup.num_examples), targets
    if place == inputs.CACHED_ON_HOST:
        return inputs.cached_shape(setup, setup.batch_size), targets
    if place == inputs.STREAMED:
        return inputs.streamed_shape(setup), targets
    images = inputs.load(setup.network, source)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), images)
    return shapes, targets


def free_bytes() -> float:
    """On one device; on a CPU, whose devices are one memory, each its part."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return psutil.virtual_memory().available / jax.local_device_count()
