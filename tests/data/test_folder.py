"""A user's own folders, and one clear line for each way they can be wrong."""

import json
import pathlib
import pickle
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data import one_step, tfds_files
from PIL import Image

from vpt_jax import data
from vpt_jax.data import fgvc, tfds_task
from vpt_jax.errors import UserError


def save(path, value=0, size=(4, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


@pytest.fixture
def splits(tmp_path):
    """{train,val,test}/{cat,dog}/; image n of a split is grey n, sizes differ."""
    for part, count in (("train", 4), ("val", 2), ("test", 3)):
        for n in range(count):
            for name in ("dog", "cat"):
                save(tmp_path / part / name / f"{n}.png", n, (4 + n, 4))
    (tmp_path / "train" / "dog" / "Thumbs.db").write_text("no image")
    (tmp_path / ".git").mkdir()
    return tmp_path


def task_of(path):
    return data.get_task(f"folder:{path}")


def refused(path, message, part="train"):
    with pytest.raises(UserError, match=message) as error:
        task_of(path).load(part, None)
    assert "\n" not in str(error.value)


def test_splits_of_classes(splits):
    task = task_of(splits)
    assert (task.name, task.num_classes) == (f"folder:{splits}", 2)
    assert task.class_names(None) == ("cat", "dog")
    train = task.load("train", None)
    assert train.labels.tolist() == [0] * 4 + [1] * 4
    assert train.ids == tuple(
        f"train/{name}/{n}.png" for name in ("cat", "dog") for n in range(4)
    )
    assert not train.uniform_size
    assert [image.shape for image in train.images[:2]] == [(4, 4, 3), (4, 5, 3)]
    assert [int(image[0, 0, 0]) for image in train.images[4:]] == [0, 1, 2, 3]
    assert len(task.load("val", None)) == 4 and len(task.load("test", None)) == 6
    trainval = task.source("trainval", None)
    assert len(trainval) == 12 and trainval.ids[8] == "val/cat/0.png"
    part = task.load("trainval", None, start=7, limit=2)
    assert part.ids == ("train/dog/3.png", "val/cat/0.png")
    assert part.labels.tolist() == [1, 0]
    assert pickle.loads(pickle.dumps(trainval)).read([9])[0].shape == (4, 5, 3)


def test_hidden_files_and_folders_are_left_out_and_told_once(splits, capsys):
    """In the splits of the fixture: .git, and what is added here."""
    save(splits / "train" / ".cache" / "0.png")
    save(splits / "train" / "dog" / ".0.png")
    (splits / "train" / "dog" / ".DS_Store").write_text("no image, hidden or not")
    save(splits / "__MACOSX" / "train" / "cat" / "0.png")
    for _ in range(2):
        task = task_of(splits)
        assert len(task.source("train", None)) == 8
        assert len(task.source("test", None)) == 6
    [line] = capsys.readouterr().err.splitlines()
    assert line == f"{splits}: skipped 4 hidden files and folders"


def test_nothing_is_told_where_nothing_is_hidden(splits, capsys):
    (splits / ".git").rmdir()
    task_of(splits)
    assert capsys.readouterr().err == ""


def test_a_deep_grey_image_is_not_white(splits):
    deep = np.full((4, 4), 257 * 7, np.uint16)
    Image.fromarray(deep).save(splits / "train" / "cat" / "0.png")
    image = task_of(splits).load("train", None, limit=1).images[0]
    assert image.tolist() == np.full((4, 4, 3), 7).tolist()


def test_without_val_a_tenth_of_each_class(tmp_path):
    for name in ("a", "b"):
        for n in range(25):
            save(tmp_path / "train" / name / f"{n:02d}.jpg")
        save(tmp_path / "test" / name / "x.jpg")
    task = task_of(tmp_path)
    train, val = task.source("train", None), task.source("val", None)
    assert np.bincount(val.labels).tolist() == [3, 3]
    assert np.bincount(train.labels).tolist() == [22, 22]
    assert not set(train.ids) & set(val.ids)
    assert task_of(tmp_path).source("val", None).ids == val.ids


def test_class_folders_alone_are_split_for_the_user(tmp_path):
    for root in (tmp_path / "one", tmp_path / "elsewhere"):
        for name in ("a", "b", "c"):
            for n in range(20 if name == "a" else 3):
                save(root / name / f"{n:02d}.png")
    ids = {}
    for part in ("train", "val", "test"):
        source = task_of(tmp_path / "one").source(part, None)
        ids[part] = source.ids
        # 80 / 10 / 10 % of each class, at least one image each
        expected = [16, 1, 1] if part == "train" else [2, 1, 1]
        assert np.bincount(source.labels).tolist() == expected
        assert task_of(tmp_path / "elsewhere").source(part, None).ids == source.ids
    everything = ids["train"] + ids["val"] + ids["test"]
    assert len(everything) == len(set(everything)) == 26
    # a new file moves few others
    save(tmp_path / "one" / "a" / "20.png")
    train = task_of(tmp_path / "one").source("train", None).ids
    assert len(set(ids["train"]) - set(train)) <= 2


def test_only_the_chosen_files_are_decoded(splits):
    (splits / "train" / "dog" / "3.png").write_bytes(b"not an image")
    task = task_of(splits)
    assert len(task.load("train", None, limit=7)) == 7
    refused(splits, r"train/dog/3\.png: cannot be read as an image")


def test_a_truncated_image(splits):
    path = splits / "train" / "cat" / "2.png"
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    refused(splits, r"train/cat/2\.png: cannot be read")


def test_an_empty_class_folder(splits):
    (splits / "train" / "bird").mkdir()
    for part in ("val", "test"):
        (splits / part / "bird").mkdir()
    refused(splits, "class folder .*test/bird holds no image")


def test_class_folders_that_differ(splits):
    save(splits / "test" / "wolf" / "0.png")
    refused(splits, "test has 3 classes and .*train has 2; 'wolf' is in one of them")


def test_a_class_that_a_split_lacks(splits):
    for path in (splits / "val" / "dog").iterdir():
        path.unlink()
    (splits / "val" / "dog").rmdir()
    refused(splits, "val has 1 classes and .*train has 2; 'dog' is in one of them")


def test_a_missing_split(splits):
    (splits / "test").rename(splits / "testing")
    refused(splits, "has testing, train, val but no test/; it needs train/ and test/")


def test_an_unexpected_folder(splits):
    (splits / "val").rename(splits / "valid")
    refused(splits, "has 'valid' beside train/ and test/; expected train, val and test")


def test_folders_that_hold_nothing_usable(tmp_path):
    refused(tmp_path / "nowhere", "nowhere is not a folder of images")
    refused(tmp_path, "holds 0 folders; expected train/ and test/")
    save(tmp_path / "a" / "0.png")
    save(tmp_path / "b" / "0.png")
    refused(tmp_path, "a holds 1 images, but .*at least 3 of each class")
    (tmp_path / "c").mkdir()
    refused(tmp_path, "class folder .*c holds no image")


# ---- lists


@pytest.fixture
def lists(tmp_path):
    """The layout that VTAB-1k is handed around in."""
    lines = {
        "train800.txt": ["images/train/0.jpg 0", "images/train/1 a.jpg 2"],
        "val200.txt": ["images/val/0.jpg 1"],
        "test.txt": ["images/test/0.jpg 4", "images/test/1.jpg 0"],
    }
    lines["train800val200.txt"] = lines["train800.txt"] + lines["val200.txt"]
    for name, rows in lines.items():
        (tmp_path / name).write_text("\n".join(rows) + "\n")
        for row in rows:
            save(tmp_path / row.rpartition(" ")[0])
    return tmp_path


def test_lists_of_files(lists):
    task = task_of(lists)
    # the largest label of all lists, not of the training images
    assert task.num_classes == 5 and task.class_names(None) == tuple("01234")
    trainval = task.load("trainval", None)
    assert trainval.labels.tolist() == [0, 2, 1]
    assert trainval.ids[1] == "images/train/1 a.jpg"
    assert task.load("test", None).labels.tolist() == [4, 0]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("test.txt", None, "has no test.txt; it needs train800.txt, val200.txt"),
        ("test.txt", "", "test.txt is empty"),
        (
            "val200.txt",
            "images/val/0.jpg",
            "val200.txt, line 1: .* is not 'path label'",
        ),
        ("val200.txt", "images/val/0.jpg -1", "line 1: .* whole number from 0"),
        ("val200.txt", "images/train/0.jpg 1", "gives images/train/0.jpg the label 1"),
        ("test.txt", "images/train/0.jpg 0", "is in test.txt and in a training list"),
        ("train800val200.txt", "images/val/0.jpg 1", "disagrees with train800.txt"),
        (
            "train800.txt",
            "images/no.jpg 0",
            "train800.txt names images/no.jpg: no such",
        ),
    ],
)
def test_lists_that_disagree(lists, file, text, message):
    if file != "train800val200.txt":
        (lists / "train800val200.txt").unlink()
    if text is None:
        (lists / file).unlink()
    else:
        (lists / file).write_text(text)
    refused(lists, message)


# ---- the authors' layout of the fine-grained sets


@pytest.fixture
def birds(tmp_path, monkeypatch):
    """CUB in small: three classes, of which val lacks the middle one."""
    row = fgvc.FgvcTask(3, (1, 1), "images")
    monkeypatch.setitem(data.TASKS, "cub", lambda: fgvc.make_task("cub", row))
    content = {
        "train": {"a/0.jpg": 10, "b/0.jpg": 2, "c/0.jpg": 33},
        "val": {"c/1.jpg": 33, "a/1.jpg": 10},
        "test": {"b/2.jpg": 2, "c/2.jpg": 33},
    }
    for part, paths in content.items():
        for n, path in enumerate(paths):
            save(tmp_path / "cub" / "images" / path, 10 * n)
        (tmp_path / "cub" / f"{part}.json").write_text(json.dumps(paths))
    return tmp_path


def test_classes_are_those_of_all_three_files(birds):
    task = data.get_task("cub")
    labels = {
        part: task.load(part, str(birds)).labels.tolist()
        for part in ("train", "val", "test")
    }
    # ids 2, 10, 33 in numerical order; a mapping of val's own would give [1, 0]
    assert labels == {"train": [1, 0, 2], "val": [2, 1], "test": [0, 2]}
    assert task.class_names(str(birds)) == ("2", "10", "33")
    assert task.load("val", str(birds)).ids == ("c/1.jpg", "a/1.jpg")
    assert task.preset == "vpt_fgvc" and task.group == "fgvc"
    # data.dir may also be the folder itself
    assert len(task.load("train", str(birds / "cub"))) == 3


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("val.json", None, "there is no .*val.json"),
        ("val.json", "{", "val.json is not JSON"),
        ("val.json", "[]", "must map image paths to classes"),
        ("val.json", '{"c/1.jpg": 4}', "have 4 classes together, but it must be 3"),
        ("val.json", '{"c/1.jpg": "x"}', "all numbers or all strings"),
        ("val.json", '{"c/1.jpg": [1]}', "all numbers or all strings"),
        ("val.json", '{"c/9.jpg": 33}', "val.json names c/9.jpg: there is no"),
    ],
)
def test_json_files_that_cannot_be_used(birds, file, content, message):
    path = birds / "cub" / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=message):
        data.get_task("cub").load("train", str(birds))


# ---- fine-grained sets from TFDS

FGVC_SPLITS = {  # numbers of records, and the paper's train and val
    "cub": ({"train": 5_994, "test": 5_794}, 5_394, 600),
    "oxford_flowers": (
        {"train": 1_020, "validation": 1_020, "test": 6_149},
        1_020,
        1_020,
    ),
    "stanford_dogs": ({"train": 12_000, "test": 8_580}, 10_800, 1_200),
    "stanford_cars": ({"train": 8_144, "test": 8_041}, 7_329, 815),
}


@pytest.mark.parametrize("name", FGVC_SPLITS)
def test_fine_grained_sets_from_tfds(name, tmp_path):
    counts, num_train, num_val = FGVC_SPLITS[name]
    row, data_dir = fgvc.FGVC[name], str(tmp_path)
    features = tfds.builder(row.tfds.name, data_dir=data_dir).info.features
    assert features["label"].num_classes == row.num_classes
    records = {
        n: tfds_files.example(features, label=n + 1, image=tfds_files.png(pixels))
        for n in range(3)
        for pixels in [np.full((5, 6 + n, 3), 50 + n, np.uint8)]
    }
    splits = {split: (count, records) for split, count in counts.items()}
    tfds_files.write(data_dir, row.tfds.name, splits)
    task = data.get_task(name)
    sizes = {part: len(task.source(part, data_dir)) for part in ("train", "val")}
    assert sizes == {"train": num_train, "val": num_val}
    assert len(task.source("test", data_dir)) == counts["test"]
    val = task.load("val", data_dir, limit=1)
    stem = row.tfds.name.split(":")[0]
    if row.val:
        assert val.ids == (f"{stem}/validation/000000",)
        first = task.load("train", data_dir, limit=1)
    else:
        assert val.ids == (f"{stem}/train/000000",)
        first = task.load("train", data_dir, limit=1)
        assert first.ids == (f"{stem}/train/000001",)
        ids = [i for p in ("train", "val") for i in task.source(p, data_dir).ids]
        assert len(ids) == len(set(ids)) == counts["train"]
        assert first.images.shape == (1, 5, 7, 3)
    assert val.labels.tolist() == [1] and val.images[0, 0, 0].tolist() == [50] * 3
    assert len(task.class_names(data_dir)) == row.num_classes
    one_step.train_a_step(task, data_dir)


def test_nabirds_comes_from_the_authors_only(tmp_path):
    with pytest.raises(UserError, match="TFDS does not have it, .*nabirds; put the"):
        data.get_task("nabirds").load("train", str(tmp_path))
    with pytest.raises(UserError, match="TFDS does not have it, .*nabirds; put the"):
        data.get_task("nabirds").class_names(str(tmp_path))


def test_nabirds_trains_on_the_authors_files(tmp_path):
    root = tmp_path / "nabirds"
    for number in range(555):
        path = root / "images" / f"{number:04d}" / "0.jpg"
        path.parent.mkdir(parents=True)
        path.touch()  # only what is trained on is decoded
    for number in range(2):
        save(root / "images" / f"{number:04d}" / "0.jpg", 90 * number, (30, 20))
    ids = {f"{number:04d}/0.jpg": 2 * number for number in range(555)}
    first = dict(list(ids.items())[:2])
    for part, content in (("train", first), ("val", ids), ("test", ids)):
        (root / f"{part}.json").write_text(json.dumps(content))
    task = data.get_task("nabirds")
    assert task.class_names(str(tmp_path))[-1] == "1108"
    one_step.train_a_step(task, str(tmp_path))


@pytest.mark.parametrize("name", fgvc.FGVC)
def test_fine_grained_tasks_are_the_paper_s(name):
    classes = {"cub": 200, "nabirds": 555, "oxford_flowers": 102}
    classes |= {"stanford_dogs": 120, "stanford_cars": 196}
    task = data.get_task(name)
    assert (task.num_classes, task.preset) == (classes[name], "vpt_fgvc")


# ---- any TFDS set


def food(data_dir, **counts):
    name = "food101:2.0.0"
    features = tfds.builder(name, data_dir=data_dir).info.features
    splits = {
        split: (count, {n: tfds_files.example(features, label=n) for n in range(3)})
        for split, count in counts.items()
    }
    tfds_files.write(data_dir, name, splits)
    return data.get_task("tfds:food101")


def parts(task, data_dir):
    return {p: task.source(p, data_dir) for p in ("train", "val", "test")}


def test_a_set_with_three_splits(tmp_path):
    task = food(str(tmp_path), train=70, validation=5, test=9)
    found = parts(task, str(tmp_path))
    assert {p: len(s) for p, s in found.items()} == {"train": 70, "val": 5, "test": 9}
    assert found["test"].ids[0] == "food101/test/000000"
    assert (task.num_classes, task.name) == (101, "tfds:food101")
    assert task.class_names(str(tmp_path))[0] == "apple_pie"
    assert task.load("train", str(tmp_path), limit=3).labels.tolist() == [0, 1, 2]


def test_a_set_with_two_splits_tests_on_the_second(tmp_path):
    found = parts(food(str(tmp_path), train=25, validation=7), str(tmp_path))
    assert [i[-3:] for i in found["val"].ids] == ["000", "010", "020"]
    assert len(found["train"]) == 22 and found["train"].ids[0][-1] == "1"
    assert found["test"].ids[0] == "food101/validation/000000"


def test_a_set_with_one_split(tmp_path):
    found = parts(food(str(tmp_path), train=25), str(tmp_path))
    assert [i[-3:] for i in found["test"].ids] == ["000", "010", "020"]
    assert [i[-3:] for i in found["val"].ids] == ["001", "011", "021"]
    assert len(found["train"]) == 19
    everything = [i for source in found.values() for i in source.ids]
    assert len(set(everything)) == 25


def test_a_set_that_only_the_disk_knows(tmp_path):
    food(str(tmp_path), train=25)
    (tmp_path / "food101").rename(tmp_path / "my_food")
    info = tmp_path / "my_food" / "2.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("food101", "my_food"))
    for path in info.parent.glob("food101-*"):
        path.rename(path.with_name(path.name.replace("food101", "my_food")))
    task = data.get_task("tfds:my_food", str(tmp_path))
    assert task.load("train", str(tmp_path), limit=1).ids == ("my_food/train/000002",)
    with pytest.raises(UserError, match="TFDS has no data set, .*'my_food'"):
        data.get_task("tfds:my_food", str(tmp_path / "elsewhere"))


def test_sets_that_cannot_be_used(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no image with a class label.*objects"):
        tfds_task.make_task("kitti", str(tmp_path))
    with pytest.raises(UserError, match="food101 is not prepared in"):
        data.get_task("tfds:food101").load("train", str(tmp_path))
    for name in ("eurosat/none", "mnist:9.9.9", "a b", ""):
        with pytest.raises(UserError, match=f"TFDS has no .*'{name}'"):
            data.get_task(f"tfds:{name}", str(tmp_path))
    # code that needs a package which is not there
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(UserError, match="vpt_jax.prepare..\\): .*tensorflow"):
        data.get_task("tfds:abstract_reasoning", str(tmp_path))


def test_a_relative_folder_and_the_home_directory(splits, monkeypatch):
    monkeypatch.setenv("HOME", str(splits.parent))
    assert task_of(pathlib.Path("~") / splits.name).num_classes == 2
