"""Tiny backbones of every family, known by name."""

import pytest
from exchange import made

from vpt_jax import backbones


@pytest.fixture(autouse=True, scope="module")
def tiny_backbones():
    with pytest.MonkeyPatch.context() as patch:
        for name, config in made.BACKBONES.items():
            patch.setitem(backbones.CONFIGS, name, config)
        yield
