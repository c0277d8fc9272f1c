"""What the kernels share."""

from collections.abc import Callable

import jax
from jax.experimental.pallas import tpu as pltpu

from vpt_jax.types import Size

BLOCKS = 7 * 2**20
"""Bytes of what a kernel reads and writes at once. They lie in VMEM twice (one is used,
one on its way); the compiler gives a kernel 16 MiB on the smallest chips."""


def independent(axes: int) -> pltpu.CompilerParams:
    """Of a kernel whose programs, over so many axes, may run in any order."""
    return pltpu.CompilerParams(dimension_semantics=("parallel",) * axes)


def by_platform(*operands, default: Callable, **forms: Callable):
    """What the form for the platform gives that a program is lowered for.

    Each form is traced, and the lowering chooses; on a mesh of TPUs or CPUs, as
    `parallel.traced_on` names it, its own alone.

    Args:
        operands: What each form takes.
        default: The form for platforms that `forms` does not name.
        forms: As in `jax.lax.platform_dependent`.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None or device.platform not in ("cpu", "tpu"):
        return jax.lax.platform_dependent(*operands, default=default, **forms)
    return forms.get(device.platform, default)(*operands)


def divides(images: Size) -> bool:
    """Whether every device gets as many of the images."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or images % mesh.shape["data"] == 0


def on_devices(run: Callable, arrays: tuple, shared: tuple = ()):
    """A kernel on arrays (B, ...), each device with its own, and on what images share.

    XLA cannot look into a kernel, so it does not divide it; the mesh is that which
    `parallel.traced_on` names.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return run(*arrays, *shared)
    images = jax.P("data")
    specs = (*(images for _ in arrays), *(jax.P() for _ in shared))
    spread = jax.shard_map(run, in_specs=specs, out_specs=images, check_vma=False)
    return spread(*arrays, *shared)
