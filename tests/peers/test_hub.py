"""An export to the Hub and back, on a server of this machine, by other processes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import VIT_TEST
from peers import hub_server

import vpt_jax
from vpt_jax import backbones, export
from vpt_jax.config import base

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("default")]

START = """
import json, sys
from conftest import VIT_TEST
import numpy as np
import vpt_jax
from vpt_jax import backbones
backbones.CONFIGS["vit_test"] = VIT_TEST
given = json.loads(sys.argv[1])
"""
PUSH = START + "print(vpt_jax.push(*given['where'], **given['how']))"
LOAD = START + (
    """
try:
    model = vpt_jax.load(given["address"], given["checkpoint"])
except vpt_jax.UserError as error:
    sys.exit(str(error))
np.save(given["out"], model.predict(np.load(given["images"])))
"""
)


@pytest.fixture(scope="module")
def run(tmp_path_factory, checkpoint):
    """A finished run, and where it lies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.CONFIGS, "vit_test", VIT_TEST)
        config = base("digits", "vpt_deep", "vit_test")
        config.backbone.checkpoint = str(checkpoint)
        config.method.length, config.epochs, config.data.test_examples = 2, 1, 50
        config.precision = "float32"
        folder = tmp_path_factory.mktemp("hub") / "run"
        vpt_jax.tune(config, folder)
        images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
        yield folder, images, vpt_jax.load(folder).predict(images)


@pytest.fixture
def hub():
    with hub_server.running() as server:
        yield server


def python(program, given, hub, home, token=hub_server.TOKEN):
    own = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_TOKEN": token}
    own |= {"PYTHONPATH": os.pathsep.join([os.getcwd(), "tests"])}
    return subprocess.run(
        [sys.executable, "-c", program, json.dumps(given)],
        env=os.environ | own,
        capture_output=True,
        text=True,
    )


def push(hub, run, home, **how):
    done = python(PUSH, {"where": [str(run[0]), "me/digits"], "how": how}, hub, home)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def load(hub, run, home, address, checkpoint, token=""):
    paths = {"out": str(home / "out.npy"), "images": str(home / "images.npy")}
    np.save(paths["images"], run[1])
    given = {"address": address, "checkpoint": str(checkpoint), **paths}
    done = python(LOAD, given, hub, home, token)
    found = np.load(paths["out"]) if done.returncode == 0 else None
    return found, done.stderr


def test_there_and_back(hub, run, tmp_path, checkpoint):
    address = push(hub, run, tmp_path)
    assert address == f"hf://me/digits@{hub.heads['me/digits']}"
    files = hub.commits["me/digits", hub.heads["me/digits"]]
    assert files.keys() == {
        *("tuned.safetensors", "manifest.json", "README.md"),
        *("learning_curve.png", "confusion.png"),
    }
    for content in files.values():
        assert str(tmp_path.parent).encode() not in content
        assert str(checkpoint.parent).encode() not in content
    found, err = load(hub, run, tmp_path, "hf://me/digits", checkpoint)
    np.testing.assert_array_equal(found, run[2])
    assert f"{address.partition('@')[2]}" in err and "pins it" in err
    found, err = load(hub, run, tmp_path, address, checkpoint)
    np.testing.assert_array_equal(found, run[2])
    assert "pins it" not in err


def test_the_card_is_one_that_the_library_reads(hub, run, tmp_path):
    from huggingface_hub import ModelCard

    push(hub, run, tmp_path)
    files = hub.commits["me/digits", hub.heads["me/digits"]]
    text = files["README.md"].decode()
    assert hub.checked == [text]  # the Hub's own check was asked for
    data = ModelCard(text).data
    assert (data.library_name, data.pipeline_tag) == ("vpt-jax", "image-classification")
    assert data.datasets == ["digits"] and data.base_model is None
    [scored] = data.eval_results
    wanted = export.read_manifest(run[0] / "export")["metrics"]["top1"]
    assert (scored.metric_type, scored.dataset_name) == ("accuracy", "digits")
    assert scored.metric_value == pytest.approx(wanted)
    assert "![Confusion](confusion.png)" in text
    assert "hf://me/digits" in text


def test_changed_files_are_refused(hub, run, tmp_path, checkpoint):
    address = push(hub, run, tmp_path)
    files = hub.commits["me/digits", hub.heads["me/digits"]]
    honest = dict(files)
    tensors = bytearray(files["tuned.safetensors"])
    tensors[-1] ^= 1
    files["tuned.safetensors"] = bytes(tensors)
    _, err = load(hub, run, tmp_path, address, checkpoint)
    assert "damaged or was changed" in err
    files.update(honest)
    for named in ("https://example.org/backbone.npz", "/etc/passwd"):
        manifest = json.loads(honest["manifest.json"])
        manifest["config"]["backbone"]["checkpoint"] = named
        files["manifest.json"] = json.dumps(manifest).encode()
        home = tmp_path / named.replace("/", "_")
        home.mkdir()
        _, err = load(hub, run, home, address, checkpoint)
        assert f"names {named!r} as its backbone's file" in err
    manifest = json.loads(honest["manifest.json"])
    del manifest["tuned_sha256"]
    files["manifest.json"] = json.dumps(manifest).encode()
    home = tmp_path / "unsigned"
    home.mkdir()
    _, err = load(hub, run, home, address, checkpoint)
    assert "does not state the sha256" in err


def test_a_private_repository_needs_a_token(hub, run, tmp_path, checkpoint):
    address = push(hub, run, tmp_path, private=True)
    assert hub.private["me/digits"]
    home = tmp_path / "stranger"
    home.mkdir()
    _, err = load(hub, run, home, address, checkpoint)
    assert "cannot be read" in err
    found, _ = load(hub, run, home, address, checkpoint, hub_server.TOKEN)
    np.testing.assert_array_equal(found, run[2])


def test_what_is_no_repository_or_no_run(hub, run, tmp_path, checkpoint):
    _, err = load(hub, run, tmp_path, "hf://digits", checkpoint)
    assert "is not of the form hf://owner/name[@revision]" in err
    given = {"where": [str(tmp_path), "me/digits"], "how": {}}
    done = python(PUSH, given, hub, tmp_path)
    assert "holds no manifest.json" in done.stderr and not hub.heads
