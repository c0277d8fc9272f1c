"""What a program is planned for: devices, and what is known of their kind."""

import dataclasses
from collections.abc import Sequence

import jax

from vpt_jax.planning import topology
from vpt_jax.planning.chips import CHIPS, Chip
from vpt_jax.planning.gpus import GPUS
from vpt_jax.planning.hlo import Operation
from vpt_jax.types import Device

SCHEDULE = "XLA's schedule; kernels by what they say of themselves"
ROOFLINE = "the roofline: products at the peak, or every byte that it holds moved once"


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices to plan for.

    Attributes:
        name: As the user wrote it, such as 'v5e:4x8'.
        platform: 'tpu', 'gpu' or 'cpu'.
        devices: Of the mesh; they need not be there.
        chip: One of them; None where nothing is known.
    """

    name: str
    platform: str
    devices: Sequence[Device]
    chip: Chip | None

    @property
    def estimate(self) -> str | None:
        """How times are estimated."""
        return {"tpu": SCHEDULE, "gpu": ROOFLINE}.get(self.platform)

    def seconds(
        self, operations: list[Operation], flops: float, traffic_bytes: float | None
    ) -> float | None:
        """Of a program: its operations on a TPU, else its FLOPs and traffic."""
        if self.chip is None:
            return None
        if self.platform == "tpu":
            return sum(map(self.chip.seconds, operations))
        traffic_bytes = traffic_bytes or 0.0
        return max(flops / self.chip.flops, traffic_bytes / self.chip.bandwidth)

    def of_peak(self, flops: float, seconds: float | None) -> float | None:
        """The part of the chip's peak that so many FLOPs in so long are."""
        if self.chip is None or not seconds:
            return None
        return flops / seconds / self.chip.flops


def find(name: str) -> Target:
    """The target of a name.

    Args:
        name: 'cpu', a TPU slice such as 'v5e:4x8', or GPUs such as 'h200' or 'b200:8'.

    Raises:
        UserError: No such devices, or no compiler for them.
    """
    if name == "cpu":
        return Target(name, "cpu", jax.devices("cpu"), None)
    kind = name.partition(":")[0]
    platform = "gpu" if kind in GPUS else "tpu"
    devices = topology.devices(name)
    return Target(name, platform, devices, CHIPS[kind])
