"""The files for PyTorch, as far as they can be seen without it."""

import json

import numpy as np
import pytest
from exchange import made
from safetensors.numpy import save_file
from serving import exports

from vpt_jax import api, backbones, checkpoints, resolution
from vpt_jax.config import base
from vpt_jax.errors import UserError
from vpt_jax.exchange import pytorch, timm_models
from vpt_jax.types import flatten


@pytest.mark.parametrize("name", made.BACKBONES)
def test_timms_names_hold_every_tensor(tmp_path, name):
    """What is written under timm's names is read again as one of timm's files."""
    config = made.BACKBONES[name]
    _, shapes, _ = checkpoints._plain(config, np.float32, np.float32, None)
    wanted = flatten(exports.random_like(shapes, 3))
    path = tmp_path / "model.safetensors"
    save_file(timm_models.state_dict(config, wanted), path)
    found = checkpoints.load_arrays(path, config, shapes, np.float32)
    assert found.keys() == wanted.keys()
    for leaf, array in wanted.items():
        np.testing.assert_array_equal(found[leaf], array)


def test_every_backbone_has_a_network_of_timm():
    for config in backbones.CONFIGS.values():
        about = json.loads(json.dumps(timm_models.described(config)))
        assert about["family"] in ("vit", "eva", "swin", "convnext", "resnet")


def test_a_backbone_that_timm_lacks_is_refused():
    with pytest.raises(UserError, match="a backbone of object cannot be written"):
        timm_models.described(object())


def test_the_command(command, tmp_path):
    folder = made.make(tmp_path, "export", "tiny_swin", "vpt_deep", length=2)
    code, out, err = command("--mode=export", "--format=torch", f"--workdir={folder}")
    assert (code, err) == (0, "")
    written = {"vpt_torch.py", "torch.json", "backbone_timm.safetensors"}
    assert {line.rpartition("/")[2] for line in out.splitlines()} == written
    about = json.loads((folder / "torch.json").read_text())
    assert about["family"] == "swin" and about["preprocessing"]["size"] == 32
    code, _, err = command("--mode=export", f"--workdir={folder}")
    assert code == 2 and "needs --format=torch or --format=stablehlo" in err


def test_what_cannot_be_written_is_refused_before_training():
    config = base("digits", "sidetune", "deit_ti16")
    config.export_torch = True
    with pytest.raises(UserError, match="sidetune cannot be written for PyTorch"):
        api.tune(config)


def test_a_run_writes_them_when_asked(monkeypatch, tmp_path):
    """Beside the export, once there is one."""

    def run(experiment, path, pretrained):
        folder = made.make(path, "export", "tiny_vit", "linear")
        assert not (folder / pytorch.CODE).exists()
        return {"status": "ok"}

    monkeypatch.setattr(api, "run", run)
    config = base("digits", "linear", "tiny_vit")
    config.backbone.checkpoint = str(made.checkpoint(tmp_path, "tiny_vit"))
    config.export_torch = True
    assert api.tune(config, tmp_path) == {"status": "ok"}
    for name in (pytorch.CODE, pytorch.ABOUT, pytorch.BACKBONE):
        assert (tmp_path / "export" / name).exists()


def test_a_sweep_refuses():
    config = base("digits", "linear", "tiny_vit")
    config.export_torch = True
    with pytest.raises(UserError, match="for a single run; after a sweep, --mode exp"):
        resolution.resolve(config, protocol=True)
