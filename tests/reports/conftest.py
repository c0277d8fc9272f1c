"""Reports know a metric by what its objective says of it."""

import types

import pytest

from vpt_jax.objectives import OBJECTIVES


@pytest.fixture(autouse=True)
def another_percentage(monkeypatch):
    """An objective whose metric is called `miou`."""
    module = types.ModuleType("segmentation")
    module.METRIC, module.LABEL, module.UNIT = "miou", "mIoU", "%"
    monkeypatch.setitem(OBJECTIVES, "segmentation", module)
