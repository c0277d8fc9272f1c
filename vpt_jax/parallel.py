"""The mesh: trials over the axis `trial`, the batch of each over the axis `data`.

Frozen weights are whole on each device, or (`config.backbone.shard`) in parts over all
devices of the mesh, put together block by block where they are used.

Several processes, on one host or many, run the same command: each has its own devices,
all decide alike, and process 0 writes.
"""

import functools
import json
import math
import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vpt_jax.errors import UserError
from vpt_jax.types import Device, Path, Tree, flatten, unflatten

T = TypeVar("T")

TASKS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
"""Where launchers say how many processes they have started."""


def join(
    processes: int | None,
    coordinator: str | None,
    process: int | None,
    timeout: int = 300,
) -> None:
    """Become one of several processes; to be called before anything uses a device.

    Args:
        processes: How many the user has started; None for this one alone.
        coordinator: HOST:PORT where process 0 listens; None to ask the TPU pod, Slurm,
            GKE or Open MPI.
        process: The number of this one, from 0; None to ask them.
        timeout: Seconds to wait for the others.

    Raises:
        UserError: There is another number of processes than the user said.
    """
    if (coordinator is None) != (process is None):
        raise UserError("--coordinator and --process are given both or not at all")
    if processes is None:
        if coordinator is not None:
            raise UserError("--coordinator needs --processes=N, how many there are")
        started = max(int(os.environ.get(name, 1)) for name in TASKS)
        if started > 1:
            raise UserError(
                f"{started} processes of this command were started, each to do all the "
                f"work: add --processes={started}, or start one"
            )
        return
    if process is not None and not 0 <= process < processes:
        raise UserError(
            f"--process={process} must be from 0 to {processes - 1}, as "
            f"--processes={processes}"
        )
    # Else JAX takes SIGTERM, which is the loop's; before it there is nothing to save.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator,
            processes if coordinator else None,
            process,
            cluster_detection_method="deactivate" if coordinator else None,
            initialization_timeout=timeout,
        )
    except ValueError as error:
        raise UserError(
            f"--processes={processes}: found no TPU pod, Slurm, GKE or Open MPI job "
            f"({error}); give --coordinator=HOST:PORT and --process=NUMBER"
        ) from error
    except RuntimeError as error:
        raise UserError(
            f"--processes={processes} did not all come together within {timeout} s; "
            f"were all started, and is the coordinator reachable? ({error})"
        ) from error
    if jax.process_count() != processes:
        raise UserError(
            f"--processes={processes}, but {jax.process_count()} run; start as many as "
            "you say"
        )


def agree(*values: float) -> tuple[float, ...]:
    """The largest of each value over all processes: what they decide by."""
    if jax.process_count() == 1:
        return values
    gathered = multihost_utils.process_allgather(np.array(values, np.float32))
    return tuple(map(float, gathered.max(axis=0)))


def first(work: Callable[[], object]) -> None:
    """Let process 0 do `work` while the others wait for it: what writes files.

    Raises:
        UserError: `work` raised one; the other processes then say where to look.
    """
    problem = None
    if is_first():
        try:
            work()
        except UserError as error:
            problem = error
    [failed] = agree(problem is not None)
    if failed:
        raise problem or UserError("process 0 cannot go on; see what it says")


def from_first(read: Callable[[], T]) -> T:
    """What `read` gives in process 0, in all of them: what they branch on.

    Args:
        read: Gives plain JSON types.

    Raises:
        UserError: In all, where `read` raised one.
    """
    if jax.process_count() == 1:
        return read()
    found: list = [None]
    first(lambda: found.__setitem__(0, read()))
    text = np.frombuffer(json.dumps(found[0]).encode(), np.uint8)
    [size] = multihost_utils.broadcast_one_to_all(np.array([len(text)], np.int32))
    padded = text if is_first() else np.zeros(int(size), np.uint8)
    return json.loads(multihost_utils.broadcast_one_to_all(padded).tobytes())


def place(tree: Tree, shardings) -> Tree:
    """Put arrays, of which every process has the whole, on the devices.

    Args:
        tree: The arrays.
        shardings: Where, one for all or a tree of them.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)

    def one(x, sharding: NamedSharding) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, x.__getitem__)

    return jax.tree.map(one, tree, jax.tree.broadcast(shardings, tree))


def fetch(tree: Tree) -> Tree:
    """The arrays of `place` and what was computed from them, whole on every host."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def is_first() -> bool:
    """Whether this process writes the files."""
    return jax.process_index() == 0


def make_mesh(num_trials: int, batch_size: int, devices: Sequence[Device] = ()) -> Mesh:
    """All devices as (trial, data): first as many over trials as divide them.

    A batch that the remaining devices do not divide evenly uses as many as do. The
    devices of a process follow each other: it holds successive rows of a batch.

    Args:
        num_trials, batch_size: What is to be spread.
        devices: Empty: those that JAX has here.

    Raises:
        UserError: Several processes, and devices that nothing is left for.
    """
    devices = sorted(devices or jax.devices(), key=lambda d: (d.process_index, d.id))
    trial = math.gcd(num_trials, len(devices))
    data = math.gcd(batch_size, len(devices) // trial)
    if jax.process_count() > 1 and trial * data < len(devices):
        raise UserError(
            f"{num_trials} trials of batch_size {batch_size} cannot be spread over the "
            f"{len(devices)} devices of {jax.process_count()} processes; make the "
            "batch_size a multiple of the devices"
        )
    grid = np.array(devices[: trial * data]).reshape(trial, data)
    return Mesh(grid, ("trial", "data"), axis_types=(AxisType.Auto,) * 2)


def traced_on(mesh: Mesh, program: Callable) -> Callable:
    """A program, to be compiled, whose kernels learn that it runs on `mesh`."""

    @functools.wraps(program)
    def traced(*arguments):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return program(*arguments)

    return traced


def flat(mesh: Mesh) -> Mesh:
    """The same devices, all along `data`."""
    return Mesh(mesh.devices.reshape(1, -1), mesh.axis_names, mesh.axis_types)


def replicated(mesh: Mesh) -> NamedSharding:
    """One copy on each device: frozen weights and the images."""
    return NamedSharding(mesh, PartitionSpec())


def frozen_shardings(mesh: Mesh, frozen: Tree, shard: bool) -> Tree:
    """Where the frozen weights lie.

    Args:
        mesh: The devices.
        frozen: Weights, of which paths and shapes are used.
        shard: Whether the matrices of the blocks, nearly all there is, are cut.
    """

    def of(path: Path, shape: tuple[int, ...]) -> NamedSharding:
        even = [n for n in shape if n % mesh.size == 0]
        if not shard or "blocks" not in path or len(shape) < 2 or not even:
            return replicated(mesh)
        spec: list = [None] * len(shape)
        spec[shape.index(max(even))] = mesh.axis_names
        return NamedSharding(mesh, PartitionSpec(*spec))

    leaves = flatten(frozen).items()
    return unflatten(frozen, {path: of(path, leaf.shape) for path, leaf in leaves})


def over_trials(mesh: Mesh) -> NamedSharding:
    """The leading axis T over the devices of `trial`."""
    return NamedSharding(mesh, PartitionSpec("trial"))


def over_both(mesh: Mesh) -> NamedSharding:
    """Leading axes (T, B) over the devices of `trial` and `data`."""
    return NamedSharding(mesh, PartitionSpec("trial", "data"))


def over_batch(mesh: Mesh) -> NamedSharding:
    """The leading axis B over the devices of `data`."""
    return NamedSharding(mesh, PartitionSpec("data"))


def own_rows(mesh: Mesh, batch_size: int) -> slice:
    """The rows of a batch that the devices of this process hold."""
    held = over_batch(mesh).addressable_devices_indices_map((batch_size,)).values()
    bounds = [index[0].indices(batch_size)[:2] for index in held if index]
    return slice(min(a for a, _ in bounds), max(b for _, b in bounds))
