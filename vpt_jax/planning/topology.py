"""Devices that are not there, to compile for."""

import importlib.util
import math
import os
import re
from collections.abc import Sequence

from jax.experimental import topologies

from vpt_jax.errors import UserError
from vpt_jax.planning.gpus import GPUS
from vpt_jax.types import Device

QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    # Another process of this machine may compile too: no chip is opened.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
"""Lets libtpu start where there is neither a chip nor Google's network."""


def devices(name: str) -> Sequence[Device]:
    """The chips of a TPU slice such as 'v5e:2x4', or GPUs such as 'h200' or 'b200:8'.

    Raises:
        UserError: There is no compiler for them, or no such devices.
    """
    kind, _, count = name.partition(":")
    return _gpus(kind, count or "1") if kind in GPUS else _slice(name)


def _gpus(kind: str, count: str) -> Sequence[Device]:
    plugins = ("jax_cuda13_plugin", "jax_cuda12_plugin")
    if not any(map(importlib.util.find_spec, plugins)):
        raise UserError(
            "compiling for a GPU needs JAX's plugin: pip install 'vpt_jax[cuda]' "
            "(Linux)"
        )
    if not count.isdigit() or not 1 <= int(count) <= 8:
        raise UserError(
            f"{kind}:{count} must be 1 to 8 GPUs of one host, as in {kind}:8"
        )
    # Else the plugin wants a driver, which is not needed to compile.
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    described = {"target_config": GPUS[kind].description()}
    try:
        return topologies.get_topology_desc(
            kind, "cuda", topology=f"1x1x{count}", **described
        ).devices
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{kind}:{count} cannot be had: {reason}") from error


def _slice(name: str) -> Sequence[Device]:
    match = re.fullmatch(r"(v\d\w*):(\d+(?:x\d+){1,2})", name)
    if match is None:
        raise UserError(
            f"{name!r} is no TPU slice and no known GPU; write it like v5e:1x1, "
            f"v6e:2x4 or h100:8 (known: {', '.join(GPUS)})"
        )
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "compiling for a TPU needs libtpu: pip install 'vpt_jax[plan-tpu]' (Linux)"
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
