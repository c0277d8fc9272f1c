"""What the manifest promises: every format that was ever written can be read.

`golden/format_1` was written by the version that came before the number was checked: a
run of three epochs, its backbone beside it, images and what it gave for them.
"""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from conftest import VIT_TEST
from exchange import made
from safetensors.numpy import load_file, save_file

import vpt_jax
from vpt_jax import backbones, export
from vpt_jax.errors import UserError

GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.fixture
def golden(tmp_path, monkeypatch):
    monkeypatch.setitem(backbones.CONFIGS, "vit_test", VIT_TEST)
    return lambda number: shutil.copytree(
        GOLDEN / f"format_{number}", tmp_path / "export"
    )


def load(folder):
    return vpt_jax.load(folder, checkpoint=str(folder / "backbone.npz"))


def change(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("number", export.READ)
def test_exports_of_every_format_give_what_they_gave(golden, number):
    folder = golden(number)
    model = load(folder)
    assert model.manifest["format"] == number
    with (
        np.load(folder / "predicted.npz") as predicted,
        jax.default_matmul_precision("highest"),
    ):
        found = model.predict(predicted["images"])
        np.testing.assert_allclose(found, predicted["probabilities"], atol=1e-5)


@pytest.mark.parametrize("number", [2, None, "1"])
def test_a_format_of_a_later_version_is_refused(golden, number):
    folder = golden(1)
    change(folder, format=number)
    with pytest.raises(UserError, match=r"of format .*; this version reads 1: update"):
        load(folder)


def test_tensors_that_were_changed_are_refused(tmp_path):
    folder = made.make(tmp_path, "export", "tiny_vit", "linear")
    vpt_jax.load(folder)
    path = folder / "tuned.safetensors"
    tensors = load_file(path)
    save_file({name: array + 1 for name, array in tensors.items()}, path)
    with pytest.raises(UserError, match="damaged or was changed; get it again"):
        vpt_jax.load(folder)


def test_single_numbers_are_read_as_they_are_and_as_they_once_were(tmp_path):
    """Gates and temperatures were written with one axis."""
    folder = made.make(tmp_path, "export", "tiny_vit", "gated", length=2)
    path = folder / "tuned.safetensors"
    tensors = load_file(path)
    assert tensors["trainable.backbone.blocks.0.gate"].shape == ()
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    wanted = vpt_jax.load(folder).predict(images)
    save_file({k: np.atleast_1d(array) for k, array in tensors.items()}, path)
    change(folder, tuned_sha256=None)
    np.testing.assert_array_equal(vpt_jax.load(folder).predict(images), wanted)
