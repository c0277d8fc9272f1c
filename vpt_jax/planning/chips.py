"""What a chip can do, as its maker says."""

import dataclasses

from vpt_jax.errors import UserError
from vpt_jax.planning.gpus import GPUS
from vpt_jax.planning.hlo import Operation


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip, which is one device.

    Attributes:
        flops: Of products in bfloat16, per second.
        bandwidth: Of its memory, bytes per second.
        memory: Bytes.
        clock: Cycles per second, in which the compiler counts.
    """

    flops: float
    bandwidth: float
    memory: float
    clock: float

    def seconds(self, operation: Operation) -> float:
        """What an operation takes: as the compiler estimates it, and of a kernel, of
        which it knows nothing, its products at half the peak and then its traffic at
        80 % of the bandwidth."""
        products = operation.flops / (0.5 * self.flops)
        traffic = operation.bytes / (0.8 * self.bandwidth)
        return operation.cycles / self.clock + products + traffic


_DENSE = {"a100": 312e12, "h100": 989e12, "h200": 989e12, "b200": 2250e12}
CHIPS = {
    "v5e": Chip(197e12, 819e9, 16e9, 1.5e9),
    "v6e": Chip(918e12, 1640e9, 32e9, 1.75e9),
    **{
        name: Chip(_DENSE[name], gpu.bandwidth, gpu.memory, 1e9 * gpu.clock_ghz)
        for name, gpu in GPUS.items()
    },
}
"""Source: cloud.google.com/tpu/docs/v5e and v6e. Clocks: of v5e, what four units of
128 x 128 multipliers need for its peak, 2^17 FLOPs a cycle; of v6e, the same with 2^19,
of which its compiler counts on 0.87 in a square product of 4,096 (of v5e's on 0.97).
GPUs: products without sparsity, NVIDIA's data sheets."""


def chip_of(topology: str) -> Chip:
    """The chip of a topology such as 'v5e:2x4'.

    Raises:
        UserError: Nothing is known about it.
    """
    name = topology.partition(":")[0]
    if name not in CHIPS:
        raise UserError(
            f"{topology!r}: no facts about such chips; known: {', '.join(CHIPS)}"
        )
    return CHIPS[name]
