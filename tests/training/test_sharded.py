"""Eight devices do what one does, with no more communication than they must."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from training import sharded

from vpt_jax import api


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `sharded` finds on eight virtual devices."""
    folder = tmp_path_factory.mktemp("sharded")
    environment = os.environ | {
        "XLA_FLAGS": os.environ["XLA_FLAGS"]
        + " --xla_force_host_platform_device_count=8",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-m", "training.sharded", str(folder)]
    subprocess.run(command, env=environment, check=True)
    return folder


@pytest.fixture(scope="module")
def programs(folder):
    return json.loads((folder / "programs.json").read_text())


@pytest.mark.parametrize("name", sharded.CASES)
def test_eight_devices_equal_one(name, folder):
    one, _ = sharded.train(name)
    with np.load(folder / f"{name}.npz") as file:
        for part, leaf in zip(file.files, one, strict=True):
            np.testing.assert_allclose(file[part], leaf, rtol=0, atol=1e-9)


def test_only_the_collectives_that_are_needed(programs):
    """Gradients and counts are summed; weights in parts are gathered in each step."""
    kinds = {name: set(found["collectives"]) for name, found in programs.items()}
    assert kinds == {
        "data": {"all-reduce"},
        "trials": set(),
        "both": {"all-reduce"},
        "parts": {"all-gather", "all-reduce"},
        "loop": {"all-gather", "all-reduce"},
    }
    for name in (
        "data",
        "both",
        "parts",
        "loop",
    ):  # XLA sums together what there is to sum
        assert programs[name]["collectives"]["all-reduce"] <= 3
    assert programs["data"]["mesh"] == {"trial": 1, "data": 8}
    assert programs["parts"]["mesh"] == {"trial": 4, "data": 2}


# Devices 0 and 1, 2 and 3, ...: the forms in which XLA writes the axis `data` of 4 x 2.
PAIRS = re.compile(
    r"\{\{0,1\},\{2,3\},\{4,5\},\{6,7\}\}|\[4,2\]<=\[8\]"
    r"|mesh\['axis_0'=4,'axis_1'=2[^]]*\] \{'axis_1'\}"
    r"|mesh\['trial'=4,'data'=2\] \{'data'\}"
    r"|mesh\['axis_0'=2,'axis_1'=4\], device_ids=\(\[4,2\]T\(1,0\)\) \{'axis_0'\}"
)


def test_no_device_waits_for_another_trial(programs):
    assert programs["both"]["mesh"] == {"trial": 4, "data": 2}
    assert programs["both"]["lines"]
    for line in programs["both"]["lines"]:
        assert PAIRS.search(line), line


def test_a_device_holds_its_part_and_gathers_block_by_block(programs):
    assert programs["data"]["own"] == programs["data"]["frozen"]
    for name, blocks in (("parts", 2), ("loop", 4)):
        matrices = 8 * blocks * (4 * 8 * 8 + 2 * 8 * 16)
        found = programs[name]
        assert found["own"] == found["frozen"] - matrices * 7 // 8
    matrices = 6  # of a block
    assert programs["parts"]["collectives"]["all-gather"] == 2 * matrices
    # The blocks between the first and the last run as a loop, forwards and backwards.
    assert programs["loop"]["collectives"]["all-gather"] == (2 + 2) * matrices


def test_a_run_with_weights_in_parts_can_be_loaded(tiny, tmp_path):
    tiny.epochs, tiny.batch_size, tiny.backbone.shard = 1, 500, True
    assert api.tune(tiny, tmp_path)["status"] == "ok"
    model = api.load(tmp_path)
    weights = jax.tree.leaves(model.network.pretrained.params)
    assert all(isinstance(x, np.ndarray) for x in weights)  # no device has them whole
    parts = model.predict([np.zeros((8, 8, 3), np.uint8)])
    plain = dataclasses.replace(model.network, shard=False)
    whole = dataclasses.replace(model, network=plain)
    np.testing.assert_allclose(
        whole.predict([np.zeros((8, 8, 3), np.uint8)]), parts, atol=1e-6
    )
