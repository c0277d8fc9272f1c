"""What is computed in: float32, or bfloat16 where the devices have it."""

import re

import jax

from vpt_jax.errors import UserError

PRECISIONS = ("float32", "bfloat16")

AMPERE = 8.0
"""Compute capability of the first of NVIDIA's GPUs with bfloat16, and the first that
cuDNN's attention is for."""


def best(platform: str | None = None) -> str:
    """Of devices of a platform; None: of those that JAX has here."""
    if platform is None and _capability() < AMPERE:
        return "float32"
    return "float32" if (platform or jax.default_backend()) == "cpu" else "bfloat16"


def check(precision: str, platform: str | None = None) -> None:
    """Refuse what is no precision, or not one of the devices (see `best`).

    Raises:
        UserError: It is refused.
    """
    if precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise UserError(f"precision {precision!r} is unknown; known: {known}")
    if platform is None and precision == "bfloat16" and _capability() < AMPERE:
        raise UserError(
            f"precision 'bfloat16' needs a GPU of compute capability {AMPERE} or more, "
            f"but {jax.devices()[0].device_kind} has {_capability()}; use float32"
        )


def _capability() -> float:
    """Of the GPUs here; endless where there are none, or none of NVIDIA's."""
    found = getattr(jax.devices()[0], "compute_capability", "")
    return float(found) if re.fullmatch(r"\d+\.\d+", found) else float("inf")
