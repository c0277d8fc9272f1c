"""Devices that are not there."""

import importlib.util
import os
import types

import pytest
from jax.experimental import topologies

from vpt_jax.errors import UserError
from vpt_jax.planning import chips, hlo, topology


def test_without_the_compiler_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"needs libtpu: pip install 'vpt_jax\[plan-tpu\]'"
    ):
        topology.devices("v5e:2x4")


def test_a_gpu_that_is_not_there_needs_no_driver(monkeypatch):
    """Else JAX's plugin refuses to start."""
    seen = {}

    def described(kind, platform, **_):
        seen.update(os.environ)
        return types.SimpleNamespace(devices=[kind, platform])

    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(topologies, "get_topology_desc", described)
    assert topology.devices("h200") == ["h200", "cuda"]
    assert seen == {"JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1"}


@pytest.mark.parametrize("name", ["v5e", "v5e:8", "v100:2", "v5e:2x"])
def test_what_is_no_slice_is_refused(name):
    with pytest.raises(UserError, match="write it like v5e:1x1"):
        topology.devices(name)


def test_unknown_chips_are_named_with_the_known_ones():
    assert chips.chip_of("v6e:2x4") is chips.CHIPS["v6e"]
    with pytest.raises(UserError, match="'v9:1x1'.*known: v5e, v6e"):
        chips.chip_of("v9:1x1")


def test_a_kernel_takes_its_products_and_then_its_traffic():
    chip = chips.Chip(flops=100.0, bandwidth=10.0, memory=1.0, clock=4.0)
    estimated = hlo.Operation("a", "fusion", "", (), cycles=8, flops=0, bytes=0)
    kernel = hlo.Operation("b", "custom-call", "", (), cycles=0, flops=200, bytes=16)
    assert chip.seconds(estimated) == 2.0
    assert chip.seconds(kernel) == pytest.approx(200 / 50 + 16 / 8)


def test_a_slice_has_its_chips():
    pytest.importorskip("libtpu")
    assert len(topology.devices("v5e:1x1")) == 1
    assert len(topology.devices("v5e:2x4")) == 8
    with pytest.raises(UserError, match="'v5e:3x5' cannot be had"):
        topology.devices("v5e:3x5")
