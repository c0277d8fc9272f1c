"""A program that jax alone runs: any batch, any task of its shapes."""

import functools
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from exchange import made
from product import slow

from vpt_jax.data.examples import Examples
from vpt_jax.errors import UserError
from vpt_jax.exchange import stablehlo
from vpt_jax.serving.load import load

PROGRAM = """
import sys
import numpy as np
import load_stablehlo
images = np.load("images.npy")
one, other = load_stablehlo.load("."), load_stablehlo.load(".", "other.npz")
found = {str(n): one(images[:n])["logits"] for n in (1, 7, 64)}
found["probabilities"] = one(images[:7])["probabilities"]
found["other"] = other(images[:7])["logits"]
np.savez("found.npz", **found)
assert not {"vpt_jax", "flax", "safetensors"} & sys.modules.keys()
"""


def outputs(model, images):
    examples = Examples.from_images(
        list(images), [0] * len(images), [str(n) for n in range(len(images))]
    )
    with jax.default_matmul_precision("highest"):
        return model.outputs(examples)


def test_a_fresh_process_gives_the_same_at_every_batch_and_for_every_task(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (64, 24, 40, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    folders = [
        made.make(tmp_path, name, "tiny_vit", "prompt+lora-2", seed, length=3)
        for name, seed in (("one", 1), ("other", 5))
    ]
    models = [load(folder, precision="float32") for folder in folders]
    for model, folder in zip(models, folders, strict=True):
        stablehlo.write(model, folder)
    work = folders[0]
    shutil.copy(folders[1] / stablehlo.TUNED, work / "other.npz")
    shutil.copy(tmp_path / "images.npy", work)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=work, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    wanted, other = (outputs(model, images) for model in models)
    with np.load(work / "found.npz") as found:
        for count in (1, 7, 64):
            np.testing.assert_allclose(found[str(count)], wanted[:count], atol=1e-5)
        np.testing.assert_allclose(found["other"], other[:7], atol=1e-5)
        assert np.abs(other - wanted).max() > 0.1
        sums = found["probabilities"].sum(-1)
    np.testing.assert_allclose(sums, 1, atol=1e-6)
    about = json.loads((work / stablehlo.ABOUT).read_text())
    assert about["platforms"] == ["cpu", "cuda", "tpu"]
    assert about["images"]["shape"] == ["b", "h", "w", "3"]
    assert about["compatibility"]["jax"] == jax.__version__


def lowered(tmp_path, backbone, method):
    """The program of a random export; what runs it, and the network itself."""
    folder = made.make(tmp_path, "export", backbone, method, length=2)
    model = load(folder, precision="float32")
    tuned = stablehlo.named({"trainable": model.trainable, "stats": model.stats})
    frozen = stablehlo.named(model.network.parts[2])
    program = stablehlo.lowered(model.network, tuned, frozen)
    return program, functools.partial(program.call, tuned, frozen), model


def assert_plain(program):
    calls = {
        line.split("@", 1)[1].split("(")[0]
        for line in program.mlir_module().splitlines()
        if "stablehlo.custom_call" in line
    }
    assert calls <= {"shape_assertion"}, calls
    assert program.disabled_safety_checks == ()


@pytest.mark.parametrize(
    "backbone, method",
    [
        ("tiny_swin", "vpt_deep"),
        ("tiny_dinov2_reg", "gated"),
        ("tiny_resnet50", "prompt_below"),
    ],
)
def test_no_call_that_later_versions_may_not_know(tmp_path, backbone, method):
    assert_plain(lowered(tmp_path, backbone, method)[0])


@pytest.mark.parametrize(
    "backbone, method",
    [
        ("tiny_dinov3_plus", "vpt_deep"),
        slow("tiny_pe", "prompt+lora-2"),
        slow("tiny_eva02", "gated"),
    ],
)
def test_rotary_families(tmp_path, backbone, method):
    program, run, model = lowered(tmp_path, backbone, method)
    assert_plain(program)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    wanted = outputs(model, images)
    assert np.ptp(wanted, axis=0).max() > 1e-3
    np.testing.assert_allclose(run(images)["logits"], wanted, atol=1e-5)


def test_pillows_resizes_are_left_to_the_caller(tmp_path):
    folder = made.make(tmp_path, "export", "tiny_vit", "linear", preset="vpt_fgvc")
    model = load(folder, precision="float32")
    stablehlo.write(model, folder)
    images = json.loads((folder / stablehlo.ABOUT).read_text())["images"]
    assert images["shape"] == ["b", "32", "32", "3"]
    assert images["before"] == {"resize": "pil_bilinear", "shorter": [256, 224]}


def test_without_flatbuffers(monkeypatch, tmp_path):
    folder = made.make(tmp_path, "export", "tiny_vit", "linear")
    model = load(folder, precision="float32")
    monkeypatch.setattr(stablehlo.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs flatbuffers: pip install"):
        stablehlo.write(model, folder)
