"""Devices that are not there, to compile for."""

import importlib.util
import math
import os
import re

import jax
from jax.experimental import topologies

from vpt_jax.errors import UserError

GPUS = ("a100", "h100", "h200", "b200")

QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    # Another process of this machine may compile too: no chip is opened.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
"""Lets libtpu start where there is neither a chip nor Google's network."""


def devices(name: str) -> list[jax.Device]:
    """The chips of a TPU slice.

    Args:
        name: Generation and shape, as in 'v5e:2x4'.

    Raises:
        UserError: There is no compiler for TPU, or no such slice.
    """
    match = re.fullmatch(r"(v\d\w*):(\d+(?:x\d+){1,2})", name)
    if match is None:
        raise UserError(f"{name!r} is no TPU slice; write it like v5e:1x1 or v6e:2x4")
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "compiling for a TPU needs libtpu: pip install '.[plan-tpu]' (Linux)"
        )
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    sides = [int(side) for side in match[2].split("x")]
    # Hosts have four chips or more, but one can be had alone.
    alone = {"chips_per_host_bounds": (1, 1, 1)} if math.prod(sides) == 1 else {}
    try:
        return topologies.get_topology_desc(name, "tpu", **alone).devices
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{name!r} cannot be had: {reason}") from error
