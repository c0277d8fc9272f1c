"""What is tuned beside a run: a run of its own, with its own settings, shown beside."""

import json

import pytest

import vpt_jax
from vpt_jax.errors import UserError
from vpt_jax.methods import METHODS
from vpt_jax.resolution import resolve
from vpt_jax.training import loop


@pytest.fixture(scope="module")
def compared(new_tiny, tmp_path_factory):
    """(workdir, result) of a run with a linear probe beside it."""
    config = new_tiny()
    config.beside = "linear optim.lr=0.25"
    workdir = tmp_path_factory.mktemp("compared") / "run"
    return workdir, vpt_jax.tune(config, workdir)


def test_it_is_a_run_of_its_own(compared, new_tiny, tmp_path):
    workdir, result = compared
    config = new_tiny()
    config.method.name, config.method.length = "linear", None
    config.optim.lr, config.optim.weight_decay = 0.25, None
    alone = vpt_jax.tune(config, tmp_path)
    [(name, found)] = result["beside"].items()
    assert name == "linear" and found["method_options"] == {}
    tensors = "export/tuned.safetensors"
    own = (workdir / "beside" / "linear" / tensors).read_bytes()
    assert own == (tmp_path / tensors).read_bytes()
    for key in ("test_top1", "trainable_params", "lr", "weight_decay", "n_train"):
        assert found[key] == alone[key], key
    assert alone["beside"] == {}
    written = json.loads((workdir / "result.json").read_text())
    assert written["beside"] == result["beside"]


def test_the_run_is_as_it_would_be_alone(compared, new_tiny, tmp_path):
    vpt_jax.tune(new_tiny(), tmp_path)
    tensors = "export/tuned.safetensors"
    assert (compared[0] / tensors).read_bytes() == (tmp_path / tensors).read_bytes()


def test_a_picture_shows_all_of_them(compared):
    picture = compared[0] / "figures" / "attention.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_what_is_finished_is_not_trained_again(new_tiny, tmp_path, monkeypatch):
    config = new_tiny()
    config.beside = "linear"
    tuned, train = [], loop.train

    def once(setup, *rest):
        tuned.append(setup)
        if len(tuned) == 2:
            raise KeyboardInterrupt
        return train(setup, *rest)

    monkeypatch.setattr(loop, "train", once)
    with pytest.raises(KeyboardInterrupt):
        vpt_jax.tune(config, tmp_path)
    assert (tmp_path / "beside/linear/result.json").exists()
    assert not (tmp_path / "result.json").exists()
    vpt_jax.tune(config, tmp_path)
    assert len(tuned) == 3  # the probe, the run that was stopped, and it again


def test_a_run_of_which_nothing_is_left_ends_without_a_picture(tiny, tmp_path, capsys):
    tiny.beside, tiny.optim.lr, tiny.epochs = "linear", 1e30, 1
    tiny.seeds = (1, 2)
    result = vpt_jax.tune(tiny, tmp_path)
    assert result["status"].startswith("failed") and result["test_top1"] is None
    assert result["beside"]["linear"]["status"] == "ok"
    assert (tmp_path / "result.json").exists()
    assert not (tmp_path / "figures" / "attention.png").exists()
    assert "no picture of where they look" in capsys.readouterr().err


def test_settings_of_one_method_are_not_those_of_another(tiny):
    tiny.optim.momentum, tiny.export_backbone = 0.8, None
    tiny.beside = "bias; lora-4 epochs=9 optim.weight_decay=0"
    found = resolve(tiny).beside
    assert list(found) == ["bias", "lora-4"]
    bias, lora = found.values()
    assert bias.network.method_name == "bias" and lora.network.method_name == "lora"
    assert bias.optimizer.base_lr == METHODS["bias"].base_lr
    assert bias.optimizer.weight_decay == METHODS["bias"].weight_decay
    assert lora.content["method"]["rank"] == 4 and lora.optimizer.weight_decay == 0
    assert (bias.epochs, lora.epochs) == (3, 9)
    for one in found.values():
        assert one.optimizer.momentum == 0.8 and one.batch_size == 256
        assert one.data == resolve(tiny).data and one.beside == {}


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ("liner", "liner"),
        ("linear lr", "not of the form 'METHOD key=value; METHOD'"),
        ("linear lr=1", "'lr' is no key of the configuration"),
        ("linear epochs=many", "epochs='many'"),
        ("linear; linear", "names linear twice"),
        ("linear optim.lr=-1", "optim.lr -1"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_trained(
    tiny, tmp_path, beside, message
):
    tiny.beside = beside
    with pytest.raises(UserError, match=message):
        vpt_jax.tune(tiny, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_sweep_has_variants_instead(tiny):
    tiny.beside = "linear"
    with pytest.raises(UserError, match="a sweep compares its variants"):
        resolve(tiny, protocol=True)
