"""The programs of a run, compiled for devices that need not be there.

Shapes take the place of arrays: no weight is read and nothing is computed.
"""

import math
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.stages import Compiled, Traced

from vpt_jax import parallel
from vpt_jax.training import inputs, pixels, programs
from vpt_jax.training.optim import Hyper
from vpt_jax.training.setup import Setup
from vpt_jax.types import Tree

_REQUIRED = re.compile(r"required .*?\(([\d.]+)([KMG])\)")


def init(setup: Setup, mesh: Mesh, num_trials: int) -> Traced:
    """What draws the state of all trials."""
    made = programs.make_init(setup, mesh)
    return made.trace(_params(setup, mesh), _hyper(mesh, num_trials))


def prefix(setup: Setup, mesh: Mesh, raw: jax.ShapeDtypeStruct) -> Traced:
    """What runs the frozen pieces over a batch of images, where they are cached."""
    made = programs.make_prefix(setup.network, setup.cut, mesh)
    return made.trace(_frozen(setup, mesh), _copies(raw, mesh))


def chunk(setup: Setup, mesh: Mesh, place: str, *arguments) -> Traced:
    """The training steps; `arguments` are those of `chunk_arguments`."""
    made = programs.make_chunk(setup, mesh, inputs.feed_of(place))
    return made.trace(*arguments)


def chunk_arguments(
    setup: Setup, mesh: Mesh, place: str, fed: tuple[Tree, Tree], num_trials: int
) -> tuple:
    """Shapes, with their shardings, of what a chunk is given.

    Args:
        setup, mesh: What is trained, and where.
        place: Of `inputs.PLACES`.
        fed: Shapes of what a step reads, of all images or of a batch, and of all
            targets.
        num_trials: T.
    """
    (images, targets), feed = fed, inputs.feed_of(place)
    if feed == "all":
        images = _copies(images, mesh)
    elif feed == "shared":
        images = _on(images, parallel.over_batch(mesh))
    else:
        each = jax.ShapeDtypeStruct((num_trials, *images.shape), images.dtype)
        images = _on(each, parallel.over_both(mesh))
    hyper, bounds = _hyper(mesh, num_trials), (np.int32(0), np.int32(0))
    state, frozen = _state(setup, mesh, hyper), _frozen(setup, mesh)
    return state, frozen, images, _copies(targets, mesh), hyper, *bounds


def outputs(
    setup: Setup, mesh: Mesh, num_trials: int, raw: jax.ShapeDtypeStruct
) -> Traced:
    """What scores a batch of images, or of windows of them, with all trials."""
    state = _state(setup, mesh, _hyper(mesh, num_trials))
    if setup.network.objective.DENSE:
        made = pixels.make_windows(setup.network, mesh, raw.shape[1])
    else:
        made = programs.make_outputs(setup.network, mesh)
    arguments = state.trainable, state.stats, _frozen(setup, mesh), _copies(raw, mesh)
    return made.trace(*arguments)


class TooLarge(Exception):
    """A compiler could not make a program fit; it says that `needed` bytes are."""

    def __init__(self, needed: float):
        super().__init__(needed)
        self.needed = needed


def compile_on(mesh: Mesh, traced: Traced) -> Compiled:
    """A program for the devices that it was traced for.

    Raises:
        TooLarge: Its compiler knows how much memory they have (TPU), and needs more.
    """
    options = {}
    if mesh.devices.flat[0].platform in ("gpu", "cuda"):
        # Nothing can be tried out on a GPU that is not there.
        options = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
    try:
        return traced.lower().compile(options)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        found = _REQUIRED.search(str(error))
        scale = {"K": 2**10, "M": 2**20, "G": 2**30}
        needed = float(found[1]) * scale[found[2]] if found else math.inf
        raise TooLarge(needed) from error


def parts_of(arguments: tuple) -> dict[str, int]:
    """Bytes on one device of a chunk's frozen weights, state, and what it reads."""
    state, frozen, images, targets, *_ = arguments
    return {
        "weights": _bytes(frozen),
        "state": _bytes(state),
        "inputs": _bytes((images, targets)),
    }


def _bytes(tree: Tree) -> int:
    leaves = jax.tree.leaves(tree)
    each = (
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves
    )
    return sum(each)


def bytes_of(program: Compiled) -> int:
    """What a program holds on one device while it runs; a donated argument once."""
    used = program.memory_analysis()
    assert used is not None  # XLA has it for every program
    kept = used.output_size_in_bytes - used.alias_size_in_bytes
    return used.temp_size_in_bytes + used.argument_size_in_bytes + max(kept, 0)


def fitting(needed: Callable[[int], float], num_trials: int, free: float) -> int:
    """As many of `num_trials` at once as there is memory for, at least one.

    All of them are tried first, and then as many as fit if they do not, so that a grid
    that fits costs the one compilation that it needs.

    Args:
        needed: Bytes on a device of a program of so many trials.
        num_trials: That are to be run.
        free: Bytes on a device.
    """
    at_once = num_trials
    while at_once > 1:
        all_ = needed(at_once)
        if all_ <= free:
            break
        fixed = needed(1)
        per_trial = (all_ - fixed) / (at_once - 1)
        at_once = min(at_once - 1, max(1, int((free - fixed) / per_trial) + 1))
    return at_once


def _on(tree: Tree, where: NamedSharding) -> Tree:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree
    )


def _copies(tree: Tree, mesh: Mesh) -> Tree:
    return _on(tree, parallel.replicated(mesh))


def _hyper(mesh: Mesh, num_trials: int) -> Hyper:
    number = jax.ShapeDtypeStruct((num_trials,), jnp.result_type(float))
    seed = jax.ShapeDtypeStruct((num_trials,), jnp.uint32)
    return _on(Hyper(number, number, seed), parallel.over_trials(mesh))


def _params(setup: Setup, mesh: Mesh) -> Tree:
    return _copies(setup.network.pretrained.params, mesh)


def _state(setup: Setup, mesh: Mesh, hyper: Hyper) -> Tree:
    made = programs.make_init(setup, mesh)
    state = jax.eval_shape(made, _params(setup, mesh), hyper)
    return _on(state, parallel.over_trials(mesh))


def _frozen(setup: Setup, mesh: Mesh) -> Tree:
    frozen = setup.network.parts[2]
    where = parallel.frozen_shardings(mesh, frozen, setup.network.shard)
    return jax.tree.map(_on, frozen, where)
