"""The mesh: trials over the axis `trial`, the batch of each over the axis `data`."""

import math

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

BATCH = PartitionSpec("data")


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
