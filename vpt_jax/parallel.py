"""The mesh: trials over the axis `trial`, the batch of each over the axis `data`.

Several processes run the same program on their part of one mesh. The first writes
files, in a folder that all can read; the others wait for it where they read.
"""

import math
import os

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

BATCH = PartitionSpec("data")


def join() -> None:
    """Join the processes of JAX_COORDINATOR_ADDRESS (host:port), if it is set.

    JAX_NUM_PROCESSES and JAX_PROCESS_ID say how many there are and which one this is;
    without them `jax.distributed` asks the cluster (Slurm, TPU pods, MPI).
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address is None or jax.distributed.is_initialized():
        return
    names = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    count, index = (os.environ.get(name) for name in names)
    jax.distributed.initialize(
        address,
        None if count is None else int(count),
        None if index is None else int(index),
    )


def is_first() -> bool:
    """Whether this process writes the files."""
    return jax.process_index() == 0


def wait() -> None:
    """Until every process is here: what the first has written is there for all."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("files")


def agree(*values: float) -> tuple[float, ...]:
    """The first process's values: what depends on a clock or a signal must be equal."""
    if jax.process_count() == 1:
        return values
    return tuple(multihost_utils.broadcast_one_to_all(np.array(values)).tolist())


def fetch(tree):
    """Arrays on the host, whole also where processes hold parts."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def make_mesh(num_trials: int, batch_size: int) -> Mesh:
    """All devices as (trial, data): first as many over trials as divide them.

    A batch that the remaining devices do not divide evenly uses as many as do.
    """
    devices = jax.devices()
    trial = math.gcd(num_trials, len(devices))
    data = math.gcd(batch_size, len(devices) // trial)
    return jax.make_mesh(
        (trial, data),
        ("trial", "data"),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=devices[: trial * data],
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """One copy on each device: frozen weights and the images."""
    return NamedSharding(mesh, PartitionSpec())


def over_trials(mesh: Mesh) -> NamedSharding:
    """The leading axis T over the devices of `trial`."""
    return NamedSharding(mesh, PartitionSpec("trial"))


def over_both(mesh: Mesh) -> NamedSharding:
    """Leading axes (T, B) over the devices of `trial` and `data`."""
    return NamedSharding(mesh, PartitionSpec("trial", "data"))


def over_batch(mesh: Mesh) -> NamedSharding:
    """The leading axis B over the devices of `data`."""
    return NamedSharding(mesh, BATCH)


def own_rows(mesh: Mesh, batch_size: int) -> slice:
    """The rows of a batch that the devices of this process hold."""
    held = over_batch(mesh).addressable_devices_indices_map((batch_size,)).values()
    bounds = [rows.indices(batch_size)[:2] for (rows,) in held]
    return slice(min(a for a, _ in bounds), max(b for _, b in bounds))
