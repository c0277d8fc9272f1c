"""What is computed in where nothing is said, and what a device cannot compute in."""

import types

import jax
import pytest

from vpt_jax import precision
from vpt_jax.errors import UserError


@pytest.mark.parametrize(
    ("kind", "capability", "best"),
    [
        ("Tesla T4", "7.5", "float32"),
        ("NVIDIA H200", "9.0", "bfloat16"),
        ("NVIDIA B200", "10.0", "bfloat16"),
        ("AMD Instinct MI250X", "gfx90a", "bfloat16"),
    ],
)
def test_bfloat16_is_for_gpus_that_have_it(monkeypatch, kind, capability, best):
    device = types.SimpleNamespace(device_kind=kind, compute_capability=capability)
    monkeypatch.setattr(jax, "devices", lambda: [device])
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert precision.best() == best
    assert precision.best("tpu") == "bfloat16"  # it is not the GPU here that counts
    precision.check("float32")
    precision.check("bfloat16", "gpu")
    if best == "float32":
        with pytest.raises(UserError, match="8.0 or more, but Tesla T4 has 7.5; use"):
            precision.check("bfloat16")
    else:
        precision.check("bfloat16")
