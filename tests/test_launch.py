"""The command: its modes, and that every mistake is one line and exit code 2."""

import dataclasses
import hashlib
import json
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest

import vpt_jax
from vpt_jax.checkpoints import zoo

ROOT = pathlib.Path(__file__).parent.parent
QUICKSTART = "--config=configs/quickstart.py"
METHODS = "vpt_deep, vpt_shallow"


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def refused(command):
    """Runs a command that must fail; checks how, and returns its one line."""

    def run(*arguments):
        code, out, err = command(*arguments)
        [line] = err.splitlines()
        assert (code, out) == (2, "") and line.startswith("error: ")
        return line

    return run


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (
            ["--config.epoch=3"],
            ["--config.epoch;", "--config.epochs?", "method.length"],
        ),
        (["--config.optim.epochs", "1"], ["optim.epochs;", "mean --config.epochs?"]),
        (["--config.lr=1"], ["--config.lr;", "mean --config.optim.lr?"]),
        (["--config.method=linear"], ["--config.method;", "--config.method.name?"]),
        (["--config.xyzzy=1"], ["--config.xyzzy; known config keys: ", "epochs"]),
        (["--config.epochs=many"], ["--config.epochs=many", "'many'"]),
        (["--config.epochs"], ["--config.epochs"]),
        (["--config.method.name=magic"], ["'magic'", METHODS]),
        (["--config.task=mnist"], ["'mnist'", "cifar100", "digits"]),
        (["--config.backbone.name=vgg"], ["'vgg'", "vit_nano", "vit_b16"]),
        (["--config.optim.lr=atuo"], ["optim.lr 'atuo'", "a number, or auto"]),
        (["--config.image_size=30"], ["30", "8 px"]),
        (["--mode=fly"], ["--mode=fly", "train|sweep|report|eval"]),
        (["--config.backbone.checkpoint=no.npz"], ["no.npz", "does not exist", "PATH"]),
    ],
)
def test_a_mistake_in_the_flags(refused, arguments, names):
    line = refused(QUICKSTART, *arguments)
    assert all(name in line for name in names), line


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], ["--mode train needs --config"]),
        (["--config.epochs=3"], ["--mode train needs --config"]),
        (["--config.epoch=3"], ["unknown --config.epoch;", "method.length"]),
        (
            ["--mode=eval", "--workdir=none", "--config.epochs=3"],
            ["cannot heed --config.epochs", "data.test_examples"],
        ),
        (
            ["--config=configs/none.py"],
            ["configs/none.py", "no such file", "ablations, fgvc"],
        ),
        (["--config", "configs"], ["--config configs:", "ablations, fgvc"]),
        (["--config=vpt_jax/errors.py"], ["vpt_jax/errors.py", "get_config"]),
        (["--config=configs/vtab.py"], ["configs/vtab.py:"]),
        (["--config=configs/vtab.py:"], ["TASK[,METHOD[,BACKBONE[,tuned]]]"]),
        (["--config=configs/vtab.py:a,b,c,d"], ["configs/vtab.py:TASK[,METHOD"]),
        (
            ["--config=configs/vtab.py:dtd,linear,vit_l16,tuned"],
            ["tuned.csv has no row for linear on dtd with vit_l16"],
        ),
        (["--config=configs/vtab.py:mnist"], ["'mnist'", "cifar100"]),
        (["--config=configs/vtab.py:cifar100,magic"], ["'magic'", METHODS]),
        (["--mode=eval"], ["--mode eval needs --workdir"]),
        (["--mode=predict", "--workdir=none"], ["--mode predict needs --images"]),
        (["--mode=predict", "--workdir=none", "--images=x"], ["none", "manifest.json"]),
        (["--mode=doctor"], ["--mode doctor needs --config"]),
        (["--mode=doctor", "--processes=2"], ["--mode doctor runs in one process"]),
        (["--processes=0"], ["processes", "positive integer"]),
    ],
)
def test_a_mistake_in_the_config_or_mode(refused, arguments, names):
    line = refused(*arguments)
    assert all(name in line for name in names), line


def test_only_the_first_process_reports_a_sweep(command, tmp_path, monkeypatch):
    finished = [{"status": "ok"}, {"status": "ok"}]
    monkeypatch.setattr("vpt_jax.sweeps.run.sweep", lambda *_: finished)
    monkeypatch.setattr("vpt_jax.parallel.is_first", lambda: False)
    arguments = "--mode=sweep", QUICKSTART, f"--workdir={tmp_path}"
    assert command(*arguments) == (0, "", "")
    assert not list(tmp_path.iterdir())


def test_missing_data(refused, tmp_path):
    line = refused(
        "--config=configs/vtab.py:cifar100",
        f"--config.data.dir={tmp_path}",
        f"--workdir={tmp_path / 'run'}",
    )
    assert "cifar100" in line and str(tmp_path) in line and "prepare" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("wrong_shape", ["cls", "(1, 1, 5)", "(1, 1, 16)"]),
        ("other_keys", ["missing embedding/bias", "unexpected x"]),
        ("objects", ["not a readable .npz"]),
        ("truncated", ["not a readable .npz"]),
        ("pickled", ["not a readable .npz"]),
        ("empty", ["not a readable .npz"]),
        ("single_array", ["not a readable .npz"]),
        ("damaged", ["not a readable .npz"]),
        ("torch", [".pth", ".npz"]),
    ],
)
def test_a_bad_checkpoint(refused, tiny_flags, checkpoint, tmp_path, kind, names):
    arrays = dict(np.load(checkpoint))
    path = tmp_path / ("bad.pth" if kind == "torch" else "bad.npz")
    if kind == "wrong_shape":
        np.savez(path, **arrays | {"cls": np.zeros((1, 1, 5), np.float32)})
    elif kind == "other_keys":
        del arrays["embedding/bias"]
        np.savez(path, **arrays, x=1.0)
    elif kind == "objects":
        np.savez(path, **arrays | {"cls": np.array([{}], object)})
    elif kind == "truncated":
        path.write_bytes(checkpoint.read_bytes()[:-100])
    elif kind == "pickled":
        path.write_bytes(pickle.dumps(arrays))
    elif kind == "single_array":
        with open(path, "wb") as file:
            np.save(file, arrays["cls"])
    elif kind == "damaged":
        np.savez_compressed(path, **arrays)
        content = bytearray(path.read_bytes())
        content[120:1000] = b"\xff" * 880
        path.write_bytes(content)
    else:
        path.touch()
    workdir = tmp_path / "run"
    line = refused(
        *tiny_flags, f"--config.backbone.checkpoint={path}", "--workdir", workdir
    )
    assert all(name in line for name in [path.name, *names]), line
    assert not workdir.exists()


def test_the_script_itself():
    """What a shell sees: nothing on stdout, one line on stderr, exit code 2."""
    done = subprocess.run(
        [sys.executable, "launch.py", QUICKSTART, "--config.epoch=3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(
        "error: unknown --config.epoch; did you mean --config.epochs? known config"
    )


@pytest.mark.slow
def test_help_tells_how_to_begin_and_names_every_flag():
    asked = [sys.executable, "launch.py", "--helpshort"]
    out = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True).stdout
    assert "vpt-jax --config quickstart" in out
    assert all(f"--{name}:" in out for name in ("config", "mode", "workdir", "window"))


def test_train_then_eval(command, tiny, tiny_flags, tmp_path):
    workdir = tmp_path / "run"
    code, out, _ = command(*tiny_flags, "--workdir", workdir)
    result = json.loads((workdir / "result.json").read_text())
    assert code == 0
    assert f"{result['test_top1']:.2f} %" in out and str(workdir) in out
    assert vpt_jax.tune(tiny, workdir)["test_top1"] == result["test_top1"]

    code, out, _ = command("--mode=eval", "--workdir", workdir)
    again = json.loads((workdir / "eval.json").read_text())
    assert code == 0 and f"{result['test_top1']:.2f}" in out
    shared = result.keys() & again.keys()
    assert {"task", "n_test", "test_top1", "test_top5", "test_auc"} <= shared
    assert {k: again[k] for k in shared} == {k: result[k] for k in shared}


def test_doctor(command, tiny_flags, tmp_path):
    nano = ["--config.backbone.name=vit_nano", "--config.backbone.checkpoint=random"]
    code, out, err = command("--mode=doctor", *tiny_flags, *nano)
    assert (code, err) == (0, "") and "1,000 training images" in out
    missing = f"--config.backbone.checkpoint={tmp_path / 'none.npz'}"
    code, out, err = command("--mode=doctor", *tiny_flags, *nano, missing)
    assert (code, err) == (2, "") and "does not exist" in out


def said(out):
    """The words of doctor's table."""
    return " ".join(out.replace("│", " ").split())


def test_doctor_knows_what_a_checkpoint_needs(command, monkeypatch):
    arguments = ("--mode=doctor", "--config=configs/quickstart.py")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setitem(sys.modules, "torch", None)
    _, out, _ = command(*arguments, "--config.backbone.name=resnet50")
    words = said(out)
    for part in ("23,508,032", "BSD-3-Clause", "torch", "not installed"):
        assert part in words
    _, out, _ = command(*arguments, "--config.backbone.name=deit_ti16")
    assert "5,524,416" in out and "not installed" not in out and "unverif" not in out
    code, out, _ = command(*arguments, "--config.backbone.name=dinov3_h16plus")
    assert code == 2 and "dinov3_h16plus is unverified: no revision" in said(out)
    _, out, _ = command(*arguments, "--config.backbone.name=swin_b_384")
    assert "unverified: the resize: that of its fine-tuned sibling" in said(out)


def test_doctor_verifies_a_folder_of_checkpoints(command, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    content = b"weights"
    entry = dataclasses.replace(
        zoo.lookup("deit_ti16"), sha256=hashlib.sha256(content).hexdigest()
    )
    monkeypatch.setitem(zoo.ZOO, "deit_ti16", entry)
    place = tmp_path / "timm" / "deit_tiny_patch16_224.fb_in1k"
    place.mkdir(parents=True)
    (place / "model.safetensors").write_bytes(content)
    (tmp_path / "ViT-L_16.npz").write_bytes(content[:-1])
    (tmp_path / "own.npz").write_bytes(content[:-2])
    asked = ("--mode=doctor", "--config=configs/quickstart.py")
    folder = f"--config.backbone.checkpoint={tmp_path}"
    code, out, _ = command(*asked, folder)
    words = said(out)
    assert code == 0 and "deit_ti16, verified: sha256" in words
    assert "vit_l16 by its name; no hash is known" in words
    assert "of no known backbone" in words
    (place / "model.safetensors").write_bytes(b"weightz")
    code, out, _ = command(*asked, folder)
    words = said(out)
    assert code == 2 and "is not the published file of deit_ti16" in words
    (place / "model.safetensors").unlink()
    code, out, _ = command(*asked, f"--config.backbone.checkpoint={tmp_path / 'timm'}")
    assert code == 2 and "holds no checkpoint" in out


# ---- eval and predict take everything from the run


@pytest.mark.parametrize("mode", ["eval", "predict"])
@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--config.epochs=1"], ["cannot heed --config.epochs", "backbone.checkpoint"]),
        (["--config.image_size=16"], ["cannot heed --config.image_size"]),
        (["--config.method.length=3"], ["cannot heed --config.method.length"]),
    ],
)
def test_what_a_finished_run_cannot_heed_is_refused(refused, mode, arguments, names):
    more = ["--images=x"] * (mode == "predict")
    line = refused(QUICKSTART, f"--mode={mode}", "--workdir=none", *arguments, *more)
    assert f"--mode {mode}" in line and all(name in line for name in names), line


def test_a_config_of_another_run_is_refused(command, refused, new_tiny, tmp_path):
    workdir = tmp_path / "run"
    config = new_tiny()
    config.epochs = 1
    vpt_jax.tune(config, workdir)
    for named, parts in (
        ("configs/vtab.py:cifar100", ["another task", "cifar100, not digits"]),
        ("configs/vtab.py:digits", ["another backbone", "vit_b16, not vit_test"]),
        ("configs/vtab.py:digits,linear,vit_test", ["another method", "linear"]),
        ("configs/vtab.py:digits,vpt_shallow,vit_test", ["another method", "False"]),
    ):
        line = refused("--mode=eval", f"--config={named}", "--workdir", workdir)
        assert all(part in line for part in parts), line
    same = ["--config=configs/vtab.py:digits,vpt-deep,vit_test"]
    fewer = "--config.data.test_examples=20"
    for named in (same, []):
        code, out, err = command("--mode=eval", *named, fewer, "--workdir", workdir)
        assert (code, err) == (0, "") and "n_test" in out and " 20 " in out
