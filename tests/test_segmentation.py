"""Runs that give each pixel a class: what they leave, being interrupted, being used."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
import scenes_folder
from PIL import Image
from safetensors.numpy import load_file
from serving import exports

import vpt_jax
from vpt_jax import backbones, doctor, runs
from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.config import base, changed
from vpt_jax.data.images import decode_mask, read_image, read_mask
from vpt_jax.errors import UserError
from vpt_jax.planning import target
from vpt_jax.planning.plan import plan
from vpt_jax.progress import Bar
from vpt_jax.reports import collect, segmentation
from vpt_jax.resolution import resolve
from vpt_jax.serving import paint
from vpt_jax.serving.evaluate import evaluate
from vpt_jax.training import loop
from vpt_jax.training.state import Checkpoints

SHAPE = ViTConfig(patch=4, width=16, depth=2, heads=2, mlp_dim=32, image_size=16)


@pytest.fixture(scope="module")
def new_config(tmp_path_factory):
    """Makes configurations of 3 epochs of 2 steps on scenes."""
    folder = scenes_folder.write(tmp_path_factory.mktemp("data") / "scenes")

    def new(method="vpt_deep"):
        config = base(f"masks:{folder}", method, "vit_seg")
        config.backbone.checkpoint, config.head = "random", "linear"
        config.data.ignored, config.data.split = (scenes_folder.IGNORED,), "train"
        config.optim.schedule, config.optim.min_lr = "poly", 1e-4
        config.optim.lr, config.optim.head_multiplier = 0.05, 10.0
        config.epochs, config.batch_size, config.val_every = 3, 3, 3
        return config

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.CONFIGS, "vit_seg", SHAPE)
        yield new


@pytest.fixture(scope="module")
def run(new_config, tmp_path_factory):
    """A run that nobody disturbed: (workdir, result)."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    return workdir, vpt_jax.tune(new_config(), workdir)


def test_what_a_run_leaves(run):
    workdir, result = run
    assert (result["metric"], result["status"]) == ("miou", "ok")
    assert result["classes"] == list(scenes_folder.NAMES)
    assert (result["n_train"], result["n_val"], result["n_test"]) == (4, 2, 3)
    present = [iou for iou in result["test_iou"] if iou is not None]
    assert result["test_miou"] == pytest.approx(np.mean(present))
    assert 0 < result["test_pixel_accuracy"] <= 100
    names = set(load_file(workdir / "export" / "tuned.safetensors"))
    assert {n for n in names if n.startswith("stats")} == {
        *("stats.head.norm.mean", "stats.head.norm.var")
    }
    first, *_, last = map(
        json.loads, (workdir / "metrics.jsonl").read_text().splitlines()
    )
    assert last["train_loss"] < first["train_loss"]
    assert last["val_miou"] == result["val_miou"] and first["val_miou"] is None


def test_it_is_scored_again(run):
    workdir, result = run
    again = evaluate(vpt_jax.load(workdir), workdir)
    assert again["test_miou"] == result["test_miou"]
    assert again["test_iou"] == result["test_iou"]
    assert "test_miou_several" not in again


@pytest.mark.slow
def test_it_is_scored_at_several_scales(run):
    workdir, _ = run
    more = evaluate(vpt_jax.load(workdir), workdir, None, 1, True)
    assert more["n_test"] == 1 and 0 <= more["test_miou_several"] <= 100


def test_photographs_get_masks_and_overlays(run, command, tmp_path):
    workdir, _ = run
    photos = pathlib.Path(json.loads((workdir / "config.json").read_text())["task"][6:])
    images = photos / "images" / "test"
    asked = ("--workdir", workdir, "--images", images, "--output", tmp_path / "out.csv")
    code, out, error = command("--mode=predict", *asked)
    assert code == 0, error
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert rows[0] == "path,mask,overlay,classes" and len(rows) == 4
    [wanted] = vpt_jax.load(workdir).predict([read_image(images / "s0.png")])
    mask = tmp_path / "out" / "s0.png"
    np.testing.assert_array_equal(read_mask(mask), wanted)
    colours = read_image(mask).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) == len(np.unique(wanted))
    overlay = read_image(tmp_path / "out" / "s0_overlay.png")
    assert overlay.shape[0] >= wanted.shape[0] and overlay.shape[1] > wanted.shape[1]


def test_tasks_of_both_kinds_are_columns_of_one_table(
    run, new_config, command, tmp_path
):
    """Pictures are those of the task alone, in a folder of its name."""
    workdir, _ = run
    digits = base("digits", "linear", "vit_seg")
    digits.backbone.checkpoint = "random"
    probe = exports.write(tmp_path / "probe", digits, exports.names("probe", 10), 0)
    data = pathlib.Path(new_config().task.removeprefix("masks:"))
    photo = data / "images" / "test" / "s1.png"
    flags = [f"--workdir={workdir}", f"--workdir={probe}", f"--images={photo}"]
    code, _, error = command("--mode=predict", *flags, f"--output={tmp_path}/out.json")
    assert code == 0, error
    [row] = json.loads((tmp_path / "out.json").read_text())
    assert list(row) == [
        *("path", "run mask", "run overlay", "run classes"),
        *("probe class", "probe probability"),
    ]
    assert row["run mask"] == str(tmp_path / "out" / "run" / "s1.png")
    [wanted] = vpt_jax.load(workdir).predict([read_image(photo)])
    np.testing.assert_array_equal(read_mask(pathlib.Path(row["run mask"])), wanted)
    overlay = read_image(pathlib.Path(row["run overlay"]))
    assert overlay.shape[1] > wanted.shape[1]
    assert row["run classes"] == paint.shares(wanted, scenes_folder.NAMES)


def test_masks_have_the_numbers_of_their_task():
    labels = np.array([[0, 1], [2, 1]], np.uint8)
    png = paint.mask_png(labels, (7, 1, 150))
    assert decode_mask(png).tolist() == [[7, 1], [150, 1]]
    assert paint.shares(labels, ("a", "b", "c")) == "b 50.0 %; a 25.0 %; c 25.0 %"


def test_a_report_shows_every_score(run):
    workdir, result = run
    [comparison] = collect.comparisons(collect.collect(workdir)[0])
    table = segmentation.table(comparison)
    assert table is not None
    row = dict(zip(table.header, table.rows[0], strict=True))
    assert row["method"] == "vpt-deep" and row["task"] == "masks:scenes"
    assert row["mIoU [%]"] == f"{result['test_miou']:.2f}"
    [of_classes] = segmentation.classes(comparison)
    assert [r[0] for r in of_classes.rows] == list(scenes_folder.NAMES)
    assert segmentation.table3(comparison) is None


def test_table_3_stands_beside_runs_on_ade20k(run, tmp_path):
    ade = run[1] | {"task": "ade20k", "backbone": "vit_l16", "method": "linear"}
    assert ade["head"] == "linear"
    ade |= {"method_options": {}, "test_miou": 36.0, "test_miou_several": 37.5}
    ade["head"] = "pup"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "result.json").write_text(json.dumps(ade))
    [comparison] = collect.comparisons(collect.collect(tmp_path)[0])
    table = segmentation.table3(comparison)
    assert table is not None
    rows = {tuple(row[:2]): row for row in table.rows}
    assert rows["full", "paper"][2:5] == ("48.31", "50.07", "318.31")
    assert rows["linear", "paper"][2:7] == ("35.12", "37.46", "13.18", "36.00", "37.50")
    assert rows["vpt-deep", "DA-VPT"][2:4] == ("44.08", "46.01")


# ---- being interrupted


class Interrupted(Exception):
    """Stands for a crash."""


class SavedAtOnce(Checkpoints):
    """Checkpoints that are complete when `save` returns, so that tests repeat."""

    def save(self, *arguments):
        super().save(*arguments)
        self._manager.wait_until_finished()


@pytest.mark.slow
def test_a_run_that_crashed_twice_ends_alike(run, new_config, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)
    monkeypatch.setattr(runs.train, "Checkpoints", SavedAtOnce)
    for at in (1, 4):

        def crash(self, done, *_, at=at):
            if done == at:
                raise Interrupted

        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            patch.setattr(Bar, "update", crash)
            vpt_jax.tune(new_config(), tmp_path)
    result = vpt_jax.tune(new_config(), tmp_path)
    assert result["test_iou"] == run[1]["test_iou"]
    for name in ("export/tuned.safetensors", "metrics.jsonl"):
        assert (tmp_path / name).read_bytes() == (run[0] / name).read_bytes(), name


LIFE = """
import os, signal, sys
from vpt_jax.config import base
from vpt_jax.progress import Bar
from vpt_jax.training import loop
import vpt_jax
loop.CHUNK_SECONDS, loop.CHECKPOINT_SECONDS = 0, -1
folder, workdir, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
config = base(f"masks:{folder}", "vpt_deep", "vit_nano")
config.data.ignored, config.head = (11,), "pup"
config.optim.schedule, config.optim.lr = "poly", 0.01
config.epochs, config.batch_size = 3, 3
def update(self, done, *rest):
    if done == last:
        os.kill(os.getpid(), signal.SIGKILL)
Bar.update = update
vpt_jax.tune(config, workdir)
"""


@pytest.mark.slow
def test_kill_9_twice_and_the_export_is_the_same(new_config, tmp_path):
    """With the auxiliary heads, which no export holds."""
    folder = new_config().task.removeprefix("masks:")

    def live(name, last):
        command = [sys.executable, "-c", LIFE, folder, str(tmp_path / name), str(last)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(command, env=environment).returncode

    assert live("whole", -1) == 0
    for last in (2, 4):
        assert live("killed", last) == -signal.SIGKILL
    assert live("killed", -1) == 0
    files = [
        tmp_path / name / "export" / "tuned.safetensors" for name in ("whole", "killed")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not [name for name in load_file(files[0]) if "auxiliary" in name]
    model = vpt_jax.load(tmp_path / "killed")
    [labels] = model.predict([np.zeros((20, 30, 3), np.uint8)])
    assert labels.shape == (20, 30)


# ---- what is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method.name": "mlp-3"}, "gives an image one answer: its head reads one"),
        ({"backbone.name": "swin_b"}, "needs a ViT; swin_b is none"),
        ({"head": "deeplab"}, "known: pup, pup_alone, linear"),
        ({"inference.mode": "crop"}, "known: slide, whole"),
        ({"optim.name": "adamw_public"}, "head_multiplier needs"),
        ({"data.class_weights": "inv"}, "known: none"),
    ],
)
def test_what_does_not_fit_is_one_line(new_config, change, message):
    with pytest.raises(UserError, match=message):
        resolve(changed(new_config(), change))


def test_doctor_names_a_wrong_mask(new_config, tmp_path):
    config = new_config()
    root = scenes_folder.write(tmp_path / "scenes")
    config.task = f"masks:{root}"
    assert all(line.ready for line in doctor.check(config))
    path = root / "annotations" / "train" / "s2.png"
    Image.fromarray(np.full_like(read_mask(path), 9)).save(path)
    line = doctor.check(config)[-1]
    assert not line.ready and f"{path}: number 9 in row 0" in line.finding


@pytest.mark.slow
def test_a_plan_counts_windows(new_config):
    found = plan(new_config(), target.find("cpu"), False)
    [stage] = found["stages"]
    calls = {program["name"]: program["calls"] for program in stage["programs"]}
    # 2 validation images once, 3 test images, two windows each, in eights.
    assert calls == {"init": 1, "chunk": 6, "outputs": 2} and found["fits"]
