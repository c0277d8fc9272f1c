"""VTAB-1k rows against the benchmark's definition, and their way through a task."""

import dataclasses
import operator

import numpy as np
import pytest

from vpt_jax import data
from vpt_jax.data import reading, vtab
from vpt_jax.data.examples import Examples
from vpt_jax.errors import UserError


@pytest.fixture
def reads(monkeypatch):
    """Replaces the disk: example i of a slice has label i; records what was read."""
    calls = []

    def read_examples(builder, slice_spec, *, image_key, label, limit=None):
        calls.append((builder, slice_spec, image_key, limit))
        count = {"train[:800]": 800, "train[45000:45200]": 200}.get(slice_spec, 10)
        count = count if limit is None else min(limit, count)
        labels = [label({"label": i % 100, "other": 7}) for i in range(count)]
        images = np.zeros((count, 2, 2, 3), np.uint8)
        ids = [f"{slice_spec}/{i}" for i in range(count)]
        return Examples.from_images(images, labels, ids)

    monkeypatch.setattr(reading, "open_builder", lambda *arguments: arguments)
    monkeypatch.setattr(reading, "read_examples", read_examples)
    return calls


def test_cifar100_is_the_benchmark_s(reads):
    task = data.get_task("cifar100")
    assert (task.name, task.group, task.num_classes) == ("cifar100", "natural", 100)
    assert (task.metric, task.preset) == ("top1", "vpt")
    assert len(task.load("train", "dir")) == 800
    assert len(task.load("val", "dir")) == 200
    task.load("test", "dir", limit=5)
    builder = ("cifar100", "cifar100:3.*.*", "dir")
    assert reads == [
        (builder, "train[:800]", "image", None),
        (builder, "train[45000:45200]", "image", None),
        (builder, "test", "image", 5),
    ]


def test_trainval_is_train_then_val(reads):
    trainval = data.get_task("cifar100").load("trainval", None)
    assert len(trainval) == 1000
    assert trainval.ids[799:801] == ("train[:800]/799", "train[45000:45200]/0")
    assert trainval.labels[799:801].tolist() == [99, 0]


def test_a_row_can_bring_its_own_label_rule(reads):
    row = dataclasses.replace(
        vtab.VTAB_1K["cifar100"], label=operator.itemgetter("other")
    )
    examples = vtab.make_task("sevens", row).load("val", None)
    assert set(examples.labels.tolist()) == {7}


def test_a_label_out_of_range_is_an_error(reads):
    row = dataclasses.replace(vtab.VTAB_1K["cifar100"], num_classes=50)
    message = r"task half, val: example train\[45000:45200\]/50 has label 50.*0 to 49"
    with pytest.raises(UserError, match=message):
        vtab.make_task("half", row).load("val", None)


@pytest.mark.parametrize("split", ["train", "val", "trainval", "test"])
def test_missing_data_says_how_to_prepare_it(tmp_path, split):
    task = data.get_task("cifar100")
    with pytest.raises(UserError, match="task cifar100.*`tfds build cifar100 --file"):
        task.load(split, str(tmp_path))
    with pytest.raises(UserError, match="task cifar100.*tfds build"):
        task.class_names(str(tmp_path))
