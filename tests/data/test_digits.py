"""The digits task, the containers it comes in, and the lookup of tasks."""

import dataclasses

import numpy as np
import pytest

from vpt_jax import data
from vpt_jax.data import source
from vpt_jax.data.examples import Examples
from vpt_jax.data.source import fingerprint
from vpt_jax.errors import UserError


def image(height, width, value=0):
    return np.full((height, width, 3), value, np.uint8)


@pytest.fixture(scope="module")
def task():
    return data.get_task("digits")


def test_splits_in_file_order(task):
    splits = {name: task.load(name, None) for name in ("train", "val", "test")}
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 800,
        "val": 200,
        "test": 797,
    }
    ids = [i for name in ("train", "val", "test") for i in splits[name].ids]
    assert ids == [f"digits/{index:04d}" for index in range(1797)]
    trainval = task.load("trainval", None)
    assert trainval.ids == splits["train"].ids + splits["val"].ids
    np.testing.assert_array_equal(trainval.images[800:], splits["val"].images)
    np.testing.assert_array_equal(trainval.labels[800:], splits["val"].labels)
    assert task.class_names(None) == tuple("0123456789")


def test_pixels_and_labels_of_the_file(task):
    train = task.load("train", None)
    assert train.images.shape == (800, 8, 8, 3) and train.images.dtype == np.uint8
    assert train.labels.dtype == np.int32
    assert train.labels[:10].tolist() == list(range(10))
    # the first row of the first image: 0 0 5 13 9 1 0 0 of 16
    assert train.images[0, 0, :, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]
    assert (train.images == train.images[..., :1]).all()


def test_limit_reads_the_first_examples(task):
    assert task.load("test", None, limit=3).ids == task.load("test", None).ids[:3]
    assert task.load("trainval", None, limit=900).ids[-1] == "digits/0899"
    assert len(task.load("trainval", None, limit=800)) == 800
    assert len(task.load("val", None, limit=999)) == 200
    with pytest.raises(UserError, match="limit=0"):
        task.load("val", None, limit=0)


def test_unknown_names_list_the_known_ones(task):
    with pytest.raises(UserError, match="'mnist'.*cifar100, .*digits.*tfds:NAME"):
        data.get_task("mnist")
    with pytest.raises(UserError, match="'validation'.*train, val, trainval, test"):
        task.load("validation", None)


def test_procedural_parts_differ_and_limit_is_a_prefix(monkeypatch):
    sizes = {part: count for part, (count, _) in data._PROCEDURAL_PARTS.items()}
    assert sizes == {"train": 120_000, "val": 2_000, "test": 5_000}
    small = {part: (9, seed) for part, (_, seed) in data._PROCEDURAL_PARTS.items()}
    monkeypatch.setattr(data, "_PROCEDURAL_PARTS", small)
    task = data.get_task("procedural")
    parts = [task.load(part, None) for part in ("train", "val", "test")]
    for part in parts:
        assert part.images.shape == (9, 32, 32, 3)
        assert task.objective.wrong(part.labels, task.num_classes) is None
    assert len({part.images.tobytes() for part in parts}) == 3
    assert parts[1].ids[0] == "procedural/val/000000"
    limited = task.load("trainval", None, limit=12)
    np.testing.assert_array_equal(limited.images[:9], parts[0].images)
    np.testing.assert_array_equal(limited.images[9:], parts[1].images[:3])
    assert len(task.class_names(None)) == task.num_classes


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 4, 9], "task here, test: example b has label 4.*0 to 3"),
        ([-1, 0, 1], "example a has label -1"),
    ],
)
def test_a_label_out_of_range_is_named(labels, message):
    images = Examples.from_images([image(2, 2)] * 3, labels, ["a", "b", "c"])
    task = data.get_task("digits")
    part = lambda *_: images  # noqa: E731
    own = dataclasses.replace(task, name="here", part=part, num_classes=4)
    with pytest.raises(UserError, match=message):
        own.checked("test", None)
    dataclasses.replace(own, num_classes=10).checked("val", None, start=1)


def test_images_become_one_array_only_if_sizes_agree():
    same = Examples.from_images([image(2, 3), image(2, 3)], [0, 1], ["a", "b"])
    assert same.uniform_size and same.images.shape == (2, 2, 3, 3)
    mixed = Examples.from_images([image(2, 3), image(3, 2)], [0, 1], ["c", "d"])
    assert not mixed.uniform_size and mixed.images[1].shape == (3, 2, 3)
    part = mixed.select([1])
    assert part.uniform_size and part.ids == ("d",) and part.labels.tolist() == [1]
    assert part.read([0])[0].shape == (3, 2, 3)
    with pytest.raises(ValueError, match="1 images, 2 labels"):
        Examples([image(2, 2)], np.array([0, 1], np.int32), ("a",))


def test_fingerprint_sees_every_part():
    images = [image(2, 2, 7), image(2, 2, 8)]
    base = Examples.from_images(images, [0, 1], ["a", "b"])
    as_list = Examples(images, base.labels, base.ids)
    assert fingerprint(base) == fingerprint(as_list)
    assert len(fingerprint(base)) == 16
    different = [
        Examples.from_images([image(2, 2, 7), image(2, 2, 9)], [0, 1], ["a", "b"]),
        Examples.from_images(images, [0, 2], ["a", "b"]),
        Examples.from_images(images, [0, 1], ["a", "c"]),
        Examples.from_images(images[::-1], [0, 1], ["a", "b"]),
        Examples.from_images([image(1, 4, 7), image(1, 4, 8)], [0, 1], ["a", "b"]),
    ]
    assert len({fingerprint(e) for e in [base, *different]}) == 6


def test_fingerprint_of_a_large_set_leaves_out_late_pixels(monkeypatch):
    monkeypatch.setattr(source, "FINGERPRINTED", 1)

    def digest(values, names):
        images = [image(2, 2, value) for value in values]
        return fingerprint(Examples.from_images(images, [0, 1], names))

    base = digest((7, 8), "ab")
    assert base == digest((7, 9), "ab")
    assert base not in (digest((6, 8), "ab"), digest((7, 8), "ac"))
