"""Which of several seeds is used, in which precision, and in which batches."""

import json
import shutil

import jax
import numpy as np
import pytest
from training import tiny as problem

import vpt_jax
from vpt_jax import export, parallel
from vpt_jax.errors import UserError
from vpt_jax.serving.classifier import Classifier
from vpt_jax.training import programs


@pytest.fixture(scope="module")
def run(new_tiny, tmp_path_factory):
    """Three seeds, whose order as text differs from their order as numbers."""
    workdir = tmp_path_factory.mktemp("load") / "run"
    config = new_tiny()
    config.seeds, config.epochs, config.data.split = (9, 10, 80), 1, "train800"
    return workdir, vpt_jax.tune(config, workdir)


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run[0], tmp_path / "copy")


def change(folder, seed, **changes):
    path = folder / "export" / f"seed_{seed}" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_median_on_validation_is_used_and_named(copy, capsys):
    for seed, score in ((9, 50.0), (10, 70.0), (80, 60.0)):
        change(copy, seed, validation=score)
    assert vpt_jax.load(copy).manifest["seed"] == 80
    assert "of 3 seeds, 80 is used: the median on validation" in capsys.readouterr().err
    change(copy, 80, status="failed: the loss was not finite")
    assert vpt_jax.load(copy).manifest["seed"] == 9  # the lower of the two middle ones


def test_without_validation_the_first_good_seed_is_used(copy, capsys):
    for seed in (9, 10, 80):
        change(copy, seed, validation=None)
    assert vpt_jax.load(copy).manifest["seed"] == 9
    assert "the first, as none was validated" in capsys.readouterr().err
    change(copy, 9, status="failed: x")
    assert vpt_jax.load(copy).manifest["seed"] == 10
    for seed in (10, 80):
        change(copy, seed, status="failed: x")
    with pytest.raises(UserError, match="every seed of .* failed; tune it again"):
        vpt_jax.load(copy)


def test_a_seed_is_chosen_by_name(run, command, tmp_path, capsys):
    assert vpt_jax.load(run[0], seed=10).manifest["seed"] == 10
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match="no seed 3; there are: 10, 80, 9"):
        vpt_jax.load(run[0], seed=3)
    code, out, err = command("--mode=eval", "--workdir", run[0], "--seed=10")
    assert (code, err) == (0, "") and " 10 " in out
    scores = dict(zip((9, 10, 80), run[1]["test_top1_per_seed"], strict=True))
    found = json.loads((run[0] / "eval.json").read_text())
    assert (found["seed"], found["test_top1"]) == (10, scores[10])


def test_each_manifest_says_how_its_own_seed_did(run):
    lines = (run[0] / "metrics.jsonl").read_text().splitlines()
    last = {x["seed"]: x["val_top1"] for x in map(json.loads, lines)}
    for seed in (9, 10, 80):
        manifest = export.read_manifest(run[0] / "export" / f"seed_{seed}")
        assert (manifest["seed"], manifest["status"]) == (seed, "ok")
        assert manifest["validation"] == last[seed]


def test_a_cpu_computes_in_float32_unless_asked(copy):
    """What an accelerator tuned in bfloat16."""
    for seed in (9, 10, 80):
        path = copy / "export" / f"seed_{seed}" / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["config"]["precision"] = "bfloat16"
        manifest["config"]["backbone"]["dtype"] = "bfloat16"
        path.write_text(json.dumps(manifest))
    exact = vpt_jax.load(copy, seed=9)
    frozen = {x.dtype for x in jax.tree.leaves(exact.network.parts[2])}
    assert frozen == {np.dtype("float32")}
    rough = vpt_jax.load(copy, seed=9, precision="bfloat16")
    assert {str(x.dtype) for x in jax.tree.leaves(rough.network.parts[2])} == {
        "bfloat16"
    }
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    difference = np.abs(exact.predict([image]) - rough.predict([image])).max()
    assert 0 < difference < 0.1
    with pytest.raises(UserError, match="precision 'float8' is unknown"):
        vpt_jax.load(copy, seed=9, precision="float8")


def test_batches_are_powers_of_two(monkeypatch):
    """One image costs one; 21 cost two batches of 8, and one of 8 for the last five."""
    setup = problem.make_setup("linear")
    mesh = parallel.make_mesh(1, 8)
    hyper = problem.make_hyper([0.1], [0.0], [1])
    params = setup.network.pretrained.params
    state = programs.make_init(setup, mesh)(params, hyper)
    trainable, stats = jax.tree.map(lambda x: x[0], state[:2])
    model = Classifier(setup.network, trainable, stats, ("a", "b", "c"), {}, 8)
    sizes, make = [], programs.make_outputs

    def seen(network, mesh):
        outputs = make(network, mesh)

        def run(*arguments):
            sizes.append(arguments[-1].shape[0])
            return outputs(*arguments)

        return run

    monkeypatch.setattr(programs, "make_outputs", seen)
    images = np.random.default_rng(0).integers(0, 256, (21, 8, 8, 3), np.uint8)
    rows = model.predict(images)
    assert rows.shape == (21, 3) and sizes == [8, 8, 8]
    sizes.clear()
    for count, size in ((1, 1), (2, 2), (3, 4), (8, 8)):
        np.testing.assert_allclose(
            model.predict(images[:count]), rows[:count], atol=1e-6
        )
        assert sizes.pop() == size and not sizes
    with pytest.raises(ValueError, match="max_batch 6 must be a power of two"):
        Classifier(setup.network, trainable, stats, ("a",), {}, 6)


def test_an_address_that_only_the_manifest_names_is_not_opened(copy):
    """Whoever wrote the export would have this machine fetch what they like."""
    path = copy / "export" / "seed_9" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["config"]["backbone"]["checkpoint"] = "https://example.org/any.npz"
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="names https://example.org/any.npz .*give"):
        vpt_jax.load(copy, seed=9)
