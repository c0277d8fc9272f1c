"""The examples of CONTRIBUTING.md are a method that trains and a task that is tuned."""

import dataclasses
import json
import pathlib
import sys
import types

import jax
import numpy as np
import pytest
from PIL import Image
from training import tiny as problem

import vpt_jax
from vpt_jax import data, objectives
from vpt_jax.data.examples import Examples
from vpt_jax.errors import UserError
from vpt_jax.methods import recipes
from vpt_jax.serving.predict import predict_files
from vpt_jax.sweeps.run import sweep

TEXT = (pathlib.Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()


def module_of(mark, name, monkeypatch):
    """The file that stands behind a mark."""
    between = TEXT.split(f"<!-- {mark}: runs as a test -->")[1].split("<!-- end -->")[0]
    source = between.strip().removeprefix("```python").removesuffix("```")
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)  # where dataclasses look
    exec(source, module.__dict__)
    return module


@pytest.fixture
def scale(monkeypatch):
    """The example, added to the methods."""
    scale = module_of("example", "scale", monkeypatch)
    line = TEXT.split('    "scale": Recipe(')[1].split(",\n")[0]
    recipe = eval(f"Recipe({line}", vars(recipes) | {"scale": scale})
    monkeypatch.setitem(recipes.METHODS, "scale", recipe)


def test_the_example_runs(scale):
    setup = problem.make_setup("scale", {"start": 2.0})
    assert setup.cut == 4  # all of the backbone is frozen, and cached
    state = problem.run(setup, problem.make_hyper([0.1], [0], [1]), [9])
    scale = np.asarray(state.trainable["head"]["scale"])
    assert scale.shape == (1, 1, 8) and np.abs(scale - 2.0).max() > 1e-3
    assert state.loss[0, -1] < state.loss[0, 0]
    both = problem.make_setup("prompt+scale", {"start": 2.0})
    assert set(both.network.parts[1]) == {"edits", "head"}
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.trainable))


def test_the_last_bias_of_a_wrapped_head_is_not_decayed(scale):
    """Known by what it is: here its path is head.head.bias."""
    setup = problem.make_setup("scale", {"start": 2.0})
    assert setup.network.final_biases == {("head", "head", "bias")}


@pytest.fixture
def tags(monkeypatch):
    """The example, added to the objectives, and a task of its kind: a digit is tagged
    with what it is, and whether it is odd."""
    module = module_of("objective", "tags", monkeypatch)
    assert '    "tags": tags,' in TEXT
    monkeypatch.setitem(objectives.OBJECTIVES, "tags", module)
    digits = data.get_task("digits")

    def part(name, directory):
        source = digits.part(name, directory)
        one_hot = np.eye(10, dtype=np.int32)[source.labels]
        odd = source.labels[:, None] % 2
        return dataclasses.replace(source, labels=np.hstack([one_hot, odd]))

    names = (*"0123456789", "odd")
    monkeypatch.setitem(
        data.TASKS,
        "tagged",
        lambda: dataclasses.replace(
            digits,
            name="tagged",
            kind="tags",
            num_classes=11,
            part=part,
            class_names=lambda _: names,
        ),
    )
    return module


@pytest.mark.slow
def test_the_example_of_a_task_is_tuned_swept_and_used(tags, tiny, tmp_path, capsys):
    tiny.task, tiny.optim.lr, tiny.seeds = "tagged", 1.0, (1, 2)
    tiny.data.split, tiny.val_every = "train800", 1
    result = vpt_jax.tune(tiny, tmp_path / "run")
    assert (result["status"], result["metric"]) == ("ok", "map")
    assert result["test_map"] == np.mean(result["test_map_per_seed"])
    assert result["test_map_ensemble"] > 15 < result["val_map"]  # chance: 14
    assert not [key for key in result if "top1" in key]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    first, *_, last = map(json.loads, lines)
    assert last["train_loss"] < first["train_loss"] and "val_map" in last

    model = vpt_jax.load(tmp_path / "run")
    image = data.get_task("digits").load("test", None, limit=1).images[0]
    Image.fromarray(image).save(tmp_path / "digit.png")
    predict_files(model, [str(tmp_path / "digit.png")], tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().startswith("path,classes")

    tiny.seeds, tiny.optim.lr, tiny.epochs = (), None, 1
    tiny.sweep.base_lrs, tiny.sweep.weight_decays = (1.0, 1e-6), (0.0,)
    tiny.sweep.seeds, tiny.sweep.trials = (1,), 2
    [swept] = sweep(tiny, tmp_path / "sweep")
    assert swept["sweep"]["base_lr"] == 1.0
    assert swept["val_map"] == swept["sweep"]["validation"]
    bad = dataclasses.replace(data.TASKS["tagged"](), part=lambda *_: wrong_labels())
    with pytest.raises(UserError, match="example b has a target that is neither"):
        bad.checked("test", None)


def wrong_labels():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    return Examples(images, np.array([[0, 1], [0, 2]], np.int32), ("a", "b"))
