import functools

import jax
import numpy as np
import pytest
from jax.experimental import pallas as pl

from vpt_jax.backbones import tpu_attention, tpu_norm


@pytest.fixture(autouse=True)
def same_numbers(request, monkeypatch):
    """Each test draws what it draws alone, whichever ran before it."""
    if hasattr(request.module, "RNG"):
        monkeypatch.setattr(request.module, "RNG", np.random.default_rng(0))


@pytest.fixture
def interpreted(monkeypatch):
    """Kernels run anywhere; none of these is met again by what comes later."""
    call = functools.partial(pl.pallas_call, interpret=True)
    monkeypatch.setattr(pl, "pallas_call", call)
    modules = tpu_attention, tpu_norm
    made = [run for module in modules for run in (module._forward, module._backward)]
    for each in made:
        each.clear_cache()
    with jax.default_matmul_precision("highest"):
        yield
    for each in made:
        each.clear_cache()
