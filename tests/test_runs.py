"""Whole runs: what they leave behind, what they keep, and being interrupted."""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import vpt_jax
from vpt_jax import data, parallel, runs
from vpt_jax.errors import UserError
from vpt_jax.progress import Bar
from vpt_jax.resolution import resolve
from vpt_jax.runs.run import default_path
from vpt_jax.sweeps import run as sweeps
from vpt_jax.training import inputs, loop
from vpt_jax.training.optim import Hyper
from vpt_jax.training.state import Checkpoints
from vpt_jax.types import count

RESULT = """
    task group method method_options backbone checkpoint_sha256 num_classes image_size
    epochs batch_size seed optimizer lr weight_decay precision normalization metric
    higher_is_better
    test_top1 test_top1_std test_top1_per_seed test_top1_ensemble test_top5 test_auc
    test_mean_per_class val_top1
    trainable_params head_params backbone_params tuned_percent tuned_bytes train_seconds
    compile_seconds images_per_second peak_memory_bytes n_train n_val n_test
    data_fingerprint status beside
""".split()
TIMES = {
    *("train_seconds", "compile_seconds", "images_per_second", "peak_memory_bytes"),
    "workdir",
}
STEPS = 12  # of `tiny`: 3 epochs of 4


def metrics_of(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def without_times(result):
    return {key: value for key, value in result.items() if key not in TIMES}


def assert_same_run(workdir, result, reference):
    for name in ("export/tuned.safetensors", "metrics.jsonl"):
        expected = (reference[0] / name).read_bytes()
        assert (workdir / name).read_bytes() == expected, name
    assert without_times(result) == without_times(reference[1])


@pytest.fixture(scope="module")
def reference(new_tiny, tmp_path_factory):
    """A run of `tiny` that nobody disturbed: (workdir, result)."""
    workdir = tmp_path_factory.mktemp("reference") / "run"
    return workdir, vpt_jax.tune(new_tiny(), workdir)


def test_what_a_run_leaves(tiny, checkpoint, tmp_path):
    tiny.data.split = "train800"
    tiny.val_every = 2
    result = vpt_jax.tune(tiny, tmp_path)
    assert list(result) == [*RESULT, "workdir"]
    written = json.loads((tmp_path / "result.json").read_text())
    assert written | {"workdir": str(tmp_path)} == result

    # ---- two deep prompts of 2 x 16 and a head of 16 x 10 + 10
    sizes = {"trainable_params": 64 + 170, "head_params": 170}
    assert {key: result[key] for key in sizes} == sizes
    total = result["backbone_params"] + 234
    assert math.isclose(result["tuned_percent"], 100 * 234 / total)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert result["checkpoint_sha256"] == digest
    assert (result["n_train"], result["n_val"], result["n_test"]) == (800, 200, 50)
    assert (result["status"], result["seed"], result["lr"]) == ("ok", 42, 0.1)
    assert result["group"] == "embedded" and len(result["data_fingerprint"]) == 16
    assert result["test_auc"] is result["test_top1_std"] is None
    assert result["test_top1_per_seed"] == [result["test_top1"]]

    lines = metrics_of(tmp_path)
    assert [(line["epoch"], line["trial"]) for line in lines] == [
        (1, 0),
        (2, 0),
        (3, 0),
    ]
    assert [line["val_top1"] is None for line in lines] == [True, False, False]
    assert result["val_top1"] == lines[-1]["val_top1"]
    assert all(0 < line["train_loss"] < 10 for line in lines)

    export = tmp_path / "export"
    assert sorted(path.name for path in export.iterdir()) == [
        *("manifest.json", "tuned.safetensors")
    ]
    tensors = load_file(export / "tuned.safetensors")
    assert {name: x.shape for name, x in tensors.items()} == {
        "trainable.edits.prompt.prompts.tokens.0": (2, 16),
        "trainable.edits.prompt.prompts.tokens.1": (2, 16),
        "trainable.head.kernel": (16, 10),
        "trainable.head.bias": (10,),
    }
    assert result["tuned_bytes"] == (export / "tuned.safetensors").stat().st_size
    manifest = json.loads((export / "manifest.json").read_text())
    assert manifest["classes"] == list("0123456789")
    assert manifest["config"] == json.loads((tmp_path / "config.json").read_text())
    for name in ("environment.json", "figures/learning_curve.png", "tensorboard"):
        assert (tmp_path / name).exists(), name


def test_a_finished_run_is_not_trained_again(reference, new_tiny, monkeypatch, capsys):
    workdir, result = reference
    monkeypatch.setattr(loop, "train", None)
    assert vpt_jax.tune(new_tiny(), workdir) == result
    assert "finished run" in capsys.readouterr().err


def test_a_workdir_belongs_to_one_config(reference, new_tiny, tmp_path):
    other = new_tiny()
    other.epochs, other.optim.lr = 4, 0.2
    message = r"epochs \(3, now 4\), .*optim.lr \(0.1, now 0.2\)"
    with pytest.raises(UserError, match=message):
        vpt_jax.tune(other, reference[0])
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="not empty and holds no run"):
        vpt_jax.tune(other, tmp_path)


@pytest.mark.parametrize(
    ("task", "name"),
    [("folder:/my photos/cats & dogs", "cats-dogs"), ("tfds:food101", "tfds-food101")],
)
def test_the_default_folder_of_a_run(tiny, task, name):
    experiment = resolve(tiny)
    content = experiment.content | {"task": task}
    path = default_path(dataclasses.replace(experiment, content=content))
    assert path.parent.name == "runs"
    assert path.name.startswith(f"{name}-prompt-vit_test-")
    tiny.task = task
    swept = sweeps.default_path(tiny)
    assert swept.parent == path.parent
    assert swept.name.startswith(f"sweep-{name}-{tiny.method.name}-vit_test-")


# ---- what is trained and what is not


def train(config, folder, hyper=None):
    """The setup and the outcome of training alone."""
    experiment = resolve(config)
    examples = data.get_task("digits").load("trainval", None)
    setup = experiment.make_setup(examples.labels)
    if hyper is None:
        hyper = Hyper(jnp.array([0.1]), jnp.array([1e-3]), jnp.array([0], jnp.uint32))
    mesh = parallel.make_mesh(len(hyper.seed), setup.batch_size)
    ignore = lambda *_: None  # noqa: E731
    checkpoints = Checkpoints(folder, lambda: None)
    outcome = loop.train(
        *(setup, mesh, hyper, examples, None, 0, inputs.RESIDENT, checkpoints),
        *(ignore, ignore, ignore),
    )
    return setup, outcome


def test_the_loss_is_weighted_as_configured(tiny):
    labels = np.repeat(np.arange(10), np.arange(10) + 1).astype(np.int32)
    plain = resolve(tiny).make_setup(labels)
    assert plain.class_weights.tolist() == [1.0] * 10
    tiny.data.class_weights = "inv"
    weights = resolve(tiny).make_setup(labels).class_weights
    np.testing.assert_allclose(weights[0] / weights, np.arange(10) + 1, rtol=1e-5)


def test_the_backbone_s_own_preprocessing(tiny):
    tiny.data.preset = "backbone"
    tiny.backbone.name, tiny.backbone.checkpoint = "vit_nano", None
    preset = resolve(tiny).network.preset
    assert (preset.mean, preset.resize) == ((0.5,) * 3, "pil_bilinear")


@pytest.mark.parametrize(("name", "copies"), [("sgd", 1), ("adamw", 2)])
def test_only_trained_tensors_change_and_have_optimizer_state(
    tiny, tmp_path, name, copies
):
    tiny.optim.name = name
    tiny.epochs = 1
    before = resolve(tiny).network.make().parts[2]
    setup, outcome = train(tiny, tmp_path)
    frozen = setup.network.parts[2]
    assert count(frozen) == count(setup.network.pretrained.params)
    jax.tree.map(np.testing.assert_array_equal, frozen, before)

    state = outcome.state
    trained = [x.shape for x in jax.tree.leaves(state.trainable)]
    assert sum(map(math.prod, trained)) == 234
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim > 1]
    assert sorted(x.shape for x in moments) == sorted(trained * copies)
    assert count(state.opt_state) - count(moments) == copies - 1  # Adam's step counter
    fresh = {x.shape for x in jax.tree.leaves(frozen)} - {x[1:] for x in trained}
    saved = load_checkpoint_shapes(tmp_path)
    assert saved and not fresh & {shape[1:] for shape in saved}


def load_checkpoint_shapes(folder):
    """Shapes of all arrays in the newest checkpoint below a folder."""
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager(folder.absolute()) as manager:
        step = manager.latest_step()
        found = manager.restore(step, args=ocp.args.StandardRestore())
    return [x.shape for x in found.values()]


# ---- the backbone with what was tuned merged into it


def test_prompts_cannot_be_merged(tiny, tmp_path):
    tiny.export_backbone = True
    with pytest.raises(UserError, match="cannot be merged into the backbone"):
        vpt_jax.tune(tiny, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_lora_is_merged_on_export(tiny, tmp_path, checkpoint):
    tiny.method.name, tiny.method.length = "lora-2", None
    tiny.optim.lr, tiny.epochs, tiny.export_backbone = 0.01, 1, True
    vpt_jax.tune(tiny, tmp_path)
    with np.load(tmp_path / "export" / "backbone.npz") as merged:
        with np.load(checkpoint) as before:
            assert merged.files == before.files
            changed = {k for k in merged.files if (merged[k] != before[k]).any()}
    assert len(changed) == 4  # query and value of two blocks
    assert all(name.endswith(("query/kernel", "value/kernel")) for name in changed)


# ---- several trials


def test_two_seeds_are_two_runs(tiny, reference, tmp_path):
    tiny.seeds = (7, 42)
    result = vpt_jax.tune(tiny, tmp_path)
    assert result["seed"] == [7, 42]
    per_seed = result["test_top1_per_seed"]
    assert result["test_top1"] == np.mean(per_seed)
    assert result["test_top1_std"] == np.std(per_seed)
    keys = [(x["epoch"], x["trial"], x["seed"]) for x in metrics_of(tmp_path)]
    assert keys == [(e, t, s) for e in (1, 2, 3) for t, s in ((0, 7), (1, 42))]
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == [
        *("seed_42", "seed_7")
    ]
    seven, same = (
        load_file(tmp_path / "export" / f"seed_{seed}" / "tuned.safetensors")
        for seed in (7, 42)
    )
    alone = load_file(reference[0] / "export" / "tuned.safetensors")
    for name, expected in alone.items():
        np.testing.assert_allclose(same[name], expected, atol=1e-5)
        assert np.abs(seven[name] - expected).max() > 1e-3, name


def test_a_trial_that_diverges_leaves_the_others_alone(tiny, tmp_path, monkeypatch):
    good = Hyper(jnp.full(2, 0.1), jnp.full(2, 1e-3), jnp.array([1, 2], jnp.uint32))
    _, expected = train(tiny, tmp_path / "good", good)
    bad = good._replace(lr=jnp.array([0.1, 1e30]))
    monkeypatch.setattr(runs.train, "Hyper", lambda *_: bad)
    outcomes, original = [], loop.train

    def kept(*arguments):
        outcomes.append(original(*arguments))
        return outcomes[-1]

    monkeypatch.setattr(loop, "train", kept)
    tiny.seeds = (1, 2)
    result = vpt_jax.tune(tiny, tmp_path / "bad")

    assert result["status"].startswith("failed: the loss was not finite for seed 2 ")
    top1, failed = result["test_top1_per_seed"]
    assert failed is None and result["test_top1"] == top1
    assert (tmp_path / "bad" / "result.json").exists()
    assert len(metrics_of(tmp_path / "bad")) == 6
    [outcome] = outcomes
    assert outcome.state.alive.tolist() == [True, False]
    for x, y in zip(
        jax.tree.leaves(outcome.state.trainable),
        jax.tree.leaves(expected.state.trainable),
        strict=True,
    ):
        np.testing.assert_array_equal(x[0], y[0])


def test_all_trials_diverge(tiny, tmp_path):
    tiny.optim.lr = 1e30
    result = vpt_jax.tune(tiny, tmp_path)
    assert result["status"].startswith("failed: ") and "lr 1e+30" in result["status"]
    assert result["test_top1"] is None and result["test_top1_per_seed"] == [None]


# ---- being interrupted


class Interrupted(Exception):
    """Stands for a crash."""


class SavedAtOnce(Checkpoints):
    """Checkpoints that are complete when `save` returns, so that tests repeat."""

    def save(self, *arguments):
        super().save(*arguments)
        self._manager.wait_until_finished()


@pytest.fixture
def steps(monkeypatch):
    """Chunks of one step, a checkpoint after each; a list of the steps that ran."""
    seen = []
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)
    monkeypatch.setattr(runs.train, "Checkpoints", SavedAtOnce)
    monkeypatch.setattr(Bar, "update", lambda self, done, *_: seen.append(done))
    return seen


# After step 8 the second epoch is in metrics.jsonl, but not yet in a checkpoint.
@pytest.mark.parametrize("at", [1, 6, 8])
def test_an_interrupted_run_ends_as_an_undisturbed_one(
    tiny, tmp_path, reference, steps, monkeypatch, at
):
    def crash(self, done, *_):
        if done == at:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(Bar, "update", crash)
        with pytest.raises(Interrupted):
            vpt_jax.tune(tiny, tmp_path)
    assert not (tmp_path / "result.json").exists()
    assert len(metrics_of(tmp_path)) == at // 4
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 3, "tr')  # a line that the crash cut short
    result = vpt_jax.tune(tiny, tmp_path)
    assert steps == list(range(at, STEPS + 1))
    assert_same_run(tmp_path, result, reference)


@pytest.mark.parametrize("at", [6, STEPS])
def test_sigterm_saves_first(tiny, tmp_path, reference, steps, monkeypatch, at):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 1000)

    def terminate(self, done, *_):
        if done == at:
            os.kill(os.getpid(), signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(Bar, "update", terminate)
        with pytest.raises(SystemExit) as end:
            vpt_jax.tune(tiny, tmp_path)
    assert end.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is handler
    result = vpt_jax.tune(tiny, tmp_path)
    assert steps == list(range(at + 1, STEPS + 1))
    assert_same_run(tmp_path, result, reference)


DRIVER = """
import os, pathlib, signal, sys
from vpt_jax import backbones, cli
from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.progress import Bar
from vpt_jax.training import loop

backbones.CONFIGS["vit_test"] = ViTConfig(4, 16, 2, 2, 32, image_size=8)
loop.CHUNK_SECONDS, loop.CHECKPOINT_SECONDS = 0, -1
checkpoints = pathlib.Path(sys.argv.pop(1))

def update(self, done, *_):
    if any(path.name.isdigit() for path in checkpoints.iterdir()):
        os.kill(os.getpid(), signal.SIGKILL)

if sys.argv.pop(1) == "die":
    Bar.update = update
cli.main()
"""


@pytest.mark.slow
def test_kill_9(tiny_flags, tmp_path, reference):
    """The process dies as soon as a checkpoint exists, while it writes another."""
    workdir = tmp_path / "run"

    def start(fate):
        arguments = [workdir / "checkpoints", fate, *tiny_flags, "--workdir", workdir]
        return subprocess.run(
            [sys.executable, "-c", DRIVER, *map(str, arguments)],
            cwd=pathlib.Path(__file__).parent.parent,
            capture_output=True,
            text=True,
        )

    assert start("die").returncode == -signal.SIGKILL
    assert not (workdir / "result.json").exists()
    done = start("live")
    assert done.returncode == 0, done.stderr
    result = json.loads((workdir / "result.json").read_text())
    assert_same_run(workdir, result, reference)
