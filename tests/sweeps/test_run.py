"""Whole sweeps: what they leave, choose and survive."""

import json
import os
import re
import socket
import subprocess
import sys

import numpy as np
import pytest
from processes import holding

import vpt_jax
from vpt_jax import checkpoints, data
from vpt_jax.data import tasks
from vpt_jax.errors import UserError
from vpt_jax.resolution import resolve
from vpt_jax.sweeps import memory, run
from vpt_jax.training import inputs, loop

TIMES = ("train_seconds", "compile_seconds", "images_per_second", "peak_memory_bytes")


@pytest.fixture
def small(tiny):
    """Two learning rates and two decays on the digits, two final seeds."""
    return shrink(tiny)


def shrink(tiny):
    tiny.sweep.base_lrs, tiny.sweep.weight_decays = (0.3, 0.03), (1e-3, 0.0)
    tiny.sweep.seeds, tiny.sweep.trials = (1, 2), 4
    return tiny


def without_times(result):
    kept = {k: v for k, v in result.items() if k not in (*TIMES, "workdir")}
    sweep = {k: v for k, v in kept["sweep"].items() if k != "grid_seconds"}
    return kept | {"sweep": sweep}


def trials_of(workdir):
    lines = []
    for path in sorted(workdir.rglob("trials.jsonl")):
        lines += map(json.loads, path.read_text().splitlines())
    return lines


@pytest.fixture(scope="module")
def reference(new_tiny, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("sweep") / "run"
    [result] = run.sweep(shrink(new_tiny()), workdir)
    return workdir, result


def test_what_a_sweep_leaves(reference):
    workdir, result = reference
    records = trials_of(workdir)
    assert [(r["lr"], r["weight_decay"]) for r in records] == [
        *((0.3, 1e-3), (0.3, 0.0), (0.03, 1e-3), (0.03, 0.0))
    ]
    assert all(r["status"] == "ok" and 0 <= r["val_top1"] <= 100 for r in records)
    chosen = json.loads((workdir / "selection.json").read_text())
    best = max(r["val_top1"] for r in records)
    assert chosen["validation"] == result["val_top1"] == best
    assert (result["lr"], result["seed"]) == (chosen["lr"], [1, 2])
    assert (result["n_train"], result["n_test"]) == (1000, 50)
    assert result["test_top1"] == np.mean(result["test_top1_per_seed"])
    assert result["sweep"]["image_passes"] == 4 * 3 * 800
    assert sorted(path.name for path in workdir.iterdir()) == [
        *("claim.lock", "environment.json", "final", "final.lock", "plan.json"),
        *("result.json", "selection.json", "units"),
    ]
    assert not list((workdir / "units").rglob("checkpoints"))
    metrics = (workdir / "units/00/0-000/metrics.jsonl").read_text().splitlines()
    assert len(metrics) == 4 * 3


def test_the_grid_is_single_runs(reference, tiny, tmp_path):
    """Each trial's score is that of the same trial alone, and so is the final run."""
    workdir, result = reference
    tiny.data.split = "train800"
    record = trials_of(workdir)[2]
    tiny.optim.lr, tiny.optim.weight_decay = record["lr"], record["weight_decay"]
    alone = vpt_jax.tune(tiny, tmp_path / "alone")
    assert alone["val_top1"] == record["val_top1"]
    tiny.data.split, tiny.seeds = "train800val200", (1, 2)
    tiny.optim.lr, tiny.optim.weight_decay = result["lr"], result["weight_decay"]
    final = vpt_jax.tune(tiny, tmp_path / "final")
    assert final["test_top1_per_seed"] == result["test_top1_per_seed"]


def test_cohorts_do_not_change_the_choice(reference, small, tmp_path):
    small.sweep.trials = 3  # two cohorts, the second filled up
    [result] = run.sweep(small, tmp_path)
    assert [path.parent.name for path in sorted(tmp_path.rglob("trials.jsonl"))] == [
        *("0-000", "0-001")
    ]
    for a, b in zip(trials_of(tmp_path), trials_of(reference[0]), strict=True):
        assert a["val_top1"] == b["val_top1"]
        assert a["train_loss"] == pytest.approx(b["train_loss"], abs=1e-5)
    assert without_times(result) == without_times(reference[1])


def test_cohorts_of_one_shape_compile_once(small, tmp_path, monkeypatch):
    compiled, original = [], loop.programs.make_chunk
    monkeypatch.setattr(
        loop.programs, "make_chunk", lambda *a: compiled.append(a) or original(*a)
    )
    small.sweep.trials, small.sweep.base_lrs = 2, (0.3, 0.1, 0.03)
    monkeypatch.setattr(run.run, "run", stop)
    with pytest.raises(Stopped):
        run.sweep(small, tmp_path)
    assert len(trials_of(tmp_path)) == 6 and len(compiled) == 1


class Stopped(Exception):
    """Stands for a crash."""


def stop(*_):
    raise Stopped


def test_trials_of_an_earlier_process_are_counted(small, tmp_path, monkeypatch, capsys):
    small.sweep.trials = 2
    monkeypatch.setattr(run.run, "run", stop)
    for counts in (["2 of 4", "4 of 4"], ["4 of 4"]):
        with pytest.raises(Stopped):
            run.sweep(small, tmp_path)
        assert re.findall("[0-9] of 4", capsys.readouterr().err) == counts
        (tmp_path / "units/00/0-001/trials.jsonl").unlink()


def test_the_test_images_are_read_after_the_selection(small, tmp_path, monkeypatch):
    read, original = [], tasks.Task.checked

    def checked(self, split, *args, **kwargs):
        read.append((split, (tmp_path / "selection.json").exists()))
        return original(self, split, *args, **kwargs)

    monkeypatch.setattr(tasks.Task, "checked", checked)
    run.sweep(small, tmp_path)
    assert read == [
        *(("train", False), ("val", False), ("trainval", True), ("test", True))
    ]


def test_a_finished_sweep_does_nothing(reference, new_tiny, monkeypatch):
    workdir, result = reference
    monkeypatch.setattr(loop, "train", stop)
    assert run.sweep(shrink(new_tiny()), workdir) == [result]


@pytest.mark.parametrize("missing", ["result.json", "final/result.json", "cohort"])
def test_only_what_is_missing_runs_again(reference, small, tmp_path, missing):
    import shutil

    workdir = tmp_path / "run"
    shutil.copytree(reference[0], workdir)
    (workdir / "result.json").unlink()
    if missing == "final/result.json":
        (workdir / missing).unlink()
    if missing == "cohort":
        (workdir / "units/00/0-000/trials.jsonl").unlink()
        (workdir / "units/00/0-000/trials.jsonl.tmp").write_text('{"unit": "0')
    [result] = run.sweep(small, workdir)
    assert without_times(result) == without_times(reference[1])
    assert len(trials_of(workdir)) == 4


def test_a_point_that_diverges(small, tmp_path):
    small.sweep.base_lrs = (1e30, 0.03)
    [result] = run.sweep(small, tmp_path)
    statuses = [record["status"] for record in trials_of(tmp_path)]
    assert statuses[:2] == ["failed: the loss was not finite at lr 1e+30"] * 2
    assert statuses[2:] == ["ok", "ok"]
    assert (result["lr"], result["status"]) == (0.03, "ok")
    assert (result["sweep"]["trials"], result["sweep"]["failed"]) == (4, 2)


def test_all_points_diverge(small, tmp_path):
    small.sweep.base_lrs = (1e30,)
    with pytest.raises(UserError, match="all 2 trials of digits failed .*lr 1e"):
        run.sweep(small, tmp_path)
    assert not (tmp_path / "final").exists()


# ---- folders and processes


def test_another_config_on_an_old_folder(reference, small):
    small.sweep.base_lrs, small.epochs = (0.3,), 4
    message = r"sweep of another config, which differs in epochs \(3, now 4\), sweep"
    with pytest.raises(UserError, match=message):
        run.sweep(small, reference[0])


def test_an_unusable_workdir(small, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be used"):
        run.sweep(small, tmp_path / "file" / "run")
    with pytest.raises(UserError, match="not empty and holds no sweep"):
        run.sweep(small, tmp_path)


@pytest.mark.slow
def test_two_processes_on_one_workdir(small, tmp_path, capsys):
    """The second is refused while the first lives, and takes over when it is killed."""
    workdir = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.run, "run", stop)
        with pytest.raises(Stopped):
            run.sweep(small, workdir)
    (workdir / "units/00/0-000/trials.jsonl").unlink()
    with holding(workdir / "units/00/lock") as other:
        who = f"process {other} on {socket.gethostname()}"
        with pytest.raises(UserError, match=f"worked on by {who}; wait for it"):
            run.sweep(small, workdir)
        assert not trials_of(workdir)
    capsys.readouterr()
    [result] = run.sweep(small, workdir)
    assert f"left by {who}, which is gone: taken over" in capsys.readouterr().err
    assert result["status"] == "ok" and len(trials_of(workdir)) == 4


@pytest.mark.slow
def test_two_processes_equal_one(reference, checkpoint, tmp_path):
    """One sweep on a mesh over two processes; the first writes the files."""
    program = f"""
import sys
from vpt_jax import backbones, parallel
from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.config import base
from vpt_jax.sweeps.run import sweep
parallel.join(2, sys.argv[1], int(sys.argv[2]))
backbones.CONFIGS["vit_test"] = ViTConfig(4, 16, 2, 2, 32, image_size=8)
config = base("digits", "vpt_deep", "vit_test")
config.backbone.checkpoint, config.method.length = {str(checkpoint)!r}, 2
config.epochs, config.batch_size, config.data.test_examples = 3, 256, 50
config.sweep.base_lrs, config.sweep.weight_decays = (0.3, 0.03), (1e-3, 0.0)
config.sweep.seeds, config.sweep.trials = (1, 2), 4
sweep(config, {str(tmp_path / "run")!r})
"""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    here = os.environ | {"JAX_PLATFORMS": "cpu"}
    start = [sys.executable, "-c", program, f"localhost:{port}"]
    both = [subprocess.Popen([*start, str(index)], env=here) for index in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert without_times(result) == without_times(reference[1])
    pairs = zip(trials_of(tmp_path / "run"), trials_of(reference[0]), strict=True)
    for a, b in pairs:
        assert a["val_top1"] == b["val_top1"]
        assert a["train_loss"] == pytest.approx(b["train_loss"], abs=1e-5)


@pytest.mark.slow
def test_shards_share_a_folder(small, tmp_path, capsys, monkeypatch):
    small.sweep.over = "length=1,2,3"
    small.sweep.base_lrs, small.sweep.weight_decays = (0.3,), (0.0,)
    trained, original = [], loop.train

    def train(setup, *args):
        trained.append(setup.network.method[0].config.length)
        return original(setup, *args)

    monkeypatch.setattr(loop, "train", train)
    small.sweep.shard = "0/2"
    assert run.sweep(small, tmp_path) == []
    assert trained == [1, 3]
    assert "digits: the trials of other shards" in capsys.readouterr().err
    small.sweep.shard = "1/2"
    [result] = run.sweep(small, tmp_path)
    assert trained == [1, 3, 2, result["method_options"]["length"]]
    assert result["sweep"]["label"] == f"length={result['method_options']['length']}"
    assert len(trials_of(tmp_path)) == 3


def test_a_suite_has_one_backbone(small, tmp_path, monkeypatch, capsys):
    loaded, original = [], checkpoints.load
    monkeypatch.setattr(
        checkpoints, "load", lambda *a, **k: loaded.append(a[0]) or original(*a, **k)
    )
    monkeypatch.setitem(data.GROUPS, "two", ("digits", "digits2", "cifar100"))
    monkeypatch.setitem(data.TASKS, "digits2", data.TASKS["digits"])
    small.task, small.sweep.seeds = "two", (1,)
    small.data.dir = str(tmp_path / "none")
    results = run.sweep(small, tmp_path / "run")
    assert [result["task"] for result in results] == ["digits", "digits2"]
    assert results[0]["test_top1"] == results[1]["test_top1"]
    assert loaded == ["vit_test"]
    assert "error: cifar100: task cifar100" in capsys.readouterr().err


@pytest.mark.slow
def test_halving(small, tmp_path):
    small.epochs, small.sweep.halving = 10, 2
    small.sweep.base_lrs = (0.3, 0.03, 0.003)
    [result] = run.sweep(small, tmp_path)
    records = trials_of(tmp_path)
    assert [(r["round"], r["epochs"]) for r in records] == [(0, 5)] * 6 + [(1, 10)] * 3
    best = sorted(records[:6], key=lambda r: -r["val_top1"])[:3]
    assert {r["val_top1"] for r in records[6:]} and result["val_top1"] == max(
        r["val_top1"] for r in records[6:]
    )
    assert {r["position"] for r in records[6:]} <= {
        r["position"] for r in records[:6] if r["val_top1"] >= best[-1]["val_top1"]
    }
    assert result["sweep"]["image_passes"] == (6 * 5 + 3 * 10) * 800
    assert result["sweep"]["full_image_passes"] == 6 * 10 * 800


@pytest.mark.parametrize("gigabytes", [None, 0.0])
def test_trials_at_once_follow_the_memory(tiny, monkeypatch, gigabytes):
    """Of images on the device, and of those that are streamed."""
    tiny.cache.images_gb = gigabytes
    experiment = resolve(tiny)
    source = data.get_task("digits").checked("train", None)
    setup = experiment.make_setup(source.labels)
    kind = inputs.decide(setup, experiment.limits, source)
    assert kind == (inputs.RESIDENT if gigabytes is None else inputs.STREAMED)
    assert memory.trials_at_once(setup, kind, source, 8) == 8
    images = memory.step_inputs(setup, kind, source)
    needed = memory.bytes_of(setup, kind, images, 8)
    one = memory.bytes_of(setup, kind, images, 1)
    assert 8 * 2000 < needed - one  # at least the images' tokens of seven trials
    monkeypatch.setattr(memory, "free_bytes", lambda: (one + needed) / 2 / memory.SHARE)
    assert 2 <= memory.trials_at_once(setup, kind, source, 8) <= 6
    monkeypatch.setattr(memory, "free_bytes", lambda: 0)
    assert memory.trials_at_once(setup, kind, source, 8) == 1


def test_the_command(command, tiny_flags, tmp_path):
    grid = ["--config.sweep.base_lrs=(0.3,)", "--config.sweep.weight_decays=(0.0,)"]
    flags = [*tiny_flags, *grid, "--config.sweep.seeds=(1,2)"]
    code, out, _ = command("--mode=sweep", *flags, "--workdir", tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert code == 0 and f"{result['test_top1']:.2f} %" in out
    code, out, err = command(
        "--mode=sweep", *flags, "--config.sweep.shard=2", "--workdir", tmp_path / "x"
    )
    assert (code, out) == (2, "") and "i/n" in err
