"""The 19 tasks: the benchmark's definition, each read from files of its own schema."""

import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data import one_step, tfds_files

from vpt_jax import data
from vpt_jax.data import fgvc, reading, vtab
from vpt_jax.errors import UserError

# Numbers of records as task_adaptation's tests expect them, and where each part starts.
SPLITS = {
    "cifar100": {"train": 50_000, "test": 10_000},
    "caltech101": {"train": 3_060, "test": 6_084},
    "dtd": {"train": 1_880, "validation": 1_880, "test": 1_880},
    "flowers102": {"train": 1_020, "validation": 1_020, "test": 6_149},
    "pets": {"train": 3_680, "test": 3_669},
    "svhn": {"train": 73_257, "test": 26_032, "extra": 531_131},
    "sun397": {"train": 76_128, "validation": 10_875, "test": 21_750},
    "patch_camelyon": {"train": 262_144, "validation": 32_768, "test": 32_768},
    "eurosat": {"train": 27_000},
    "resisc45": {"train": 31_500},
    "retinopathy": {"train": 35_126, "validation": 10_906, "test": 42_670},
    "clevr_count": {"train": 70_000, "validation": 15_000, "test": 15_000},
    "clevr_distance": {"train": 70_000, "validation": 15_000, "test": 15_000},
    "dmlab": {"train": 65_550, "validation": 22_628, "test": 22_735},
    "kitti_distance": {"train": 6_347, "validation": 423, "test": 711},
    "dsprites_location": {"train": 737_280},
    "dsprites_orientation": {"train": 737_280},
    "smallnorb_azimuth": {"train": 24_300, "test": 24_300},
    "smallnorb_elevation": {"train": 24_300, "test": 24_300},
}
VAL = {  # first validation image
    "cifar100": ("train", 45_000),
    "caltech101": ("train", 2_754),
    "pets": ("train", 2_944),
    "svhn": ("train", 65_931),
    "eurosat": ("train", 16_200),
    "resisc45": ("train", 18_900),
    "clevr_count": ("train", 63_000),
    "clevr_distance": ("train", 63_000),
    "dsprites_location": ("train", 589_824),
    "dsprites_orientation": ("train", 589_824),
    "smallnorb_azimuth": ("test", 0),
    "smallnorb_elevation": ("test", 0),
}
TEST = {  # first test image and how many there are
    "eurosat": ("train", 21_600, 5_400),
    "resisc45": ("train", 25_200, 6_300),
    "clevr_count": ("validation", 0, 15_000),
    "clevr_distance": ("validation", 0, 15_000),
    "dsprites_location": ("train", 663_552, 73_728),
    "dsprites_orientation": ("train", 663_552, 73_728),
    "smallnorb_azimuth": ("test", 12_150, 12_150),
    "smallnorb_elevation": ("test", 12_150, 12_150),
}
CLASSES = {
    **{"cifar100": 100, "caltech101": 102, "dtd": 47, "flowers102": 102, "pets": 37},
    **{"svhn": 10, "sun397": 397, "patch_camelyon": 2, "eurosat": 10, "resisc45": 45},
    **{"retinopathy": 5, "clevr_count": 8, "clevr_distance": 6, "dmlab": 6},
    **{"kitti_distance": 4, "dsprites_location": 16, "dsprites_orientation": 16},
    **{"smallnorb_azimuth": 18, "smallnorb_elevation": 9},
}
NATURAL = ("cifar100", "caltech101", "dtd", "flowers102", "pets", "svhn", "sun397")
SPECIALIZED = ("patch_camelyon", "eurosat", "resisc45", "retinopathy")


def starts(task):
    """(split, first record) of train, val and test."""
    return {
        "train": ("train", 0),
        "val": VAL.get(task, ("validation", 0)),
        "test": TEST.get(task, ("test", 0))[:2],
    }


def objects(**columns):
    """A list of TFDS objects from columns of values."""
    return [
        dict(zip(columns, row, strict=True))
        for row in zip(*columns.values(), strict=True)
    ]


def labelled(task, features, number):
    """A record whose label is known by hand, and that label; `number` is 0, 1 or 2."""
    inner = features["objects"].feature if "objects" in features else None

    def full(rows):
        return [tfds_files.example(inner, **row) for row in rows]

    if task == "clevr_count":
        count = (3, 7, 10)[number]
        return {"objects": full([{}] * count)}, (0, 4, 7)[number]
    if task == "clevr_distance":
        depths = ((8.25, 9.9, 12.0), (10.0, 11.0, 10.5), (10.25, 99.0, 11.0))[number]
        rows = objects(pixel_coords=[np.float32((5, 5, d)) for d in depths])
        return {"objects": full(rows)}, (1, 4, 5)[number]
    if task == "kitti_distance":
        # Car 0, Van 1, Truck 2, Pedestrian 3; metres
        kinds, depths = (
            ((3, 2, 0), (2.0, 7.5, 30.0)),
            ((1, 0, 3), (20.0, 25.0, 1.0)),
            ((3, 4, 7), (1.0, 2.0, -1000.0)),
        )[number]
        places = [np.float32((0, 0, d)) for d in depths]
        return {"objects": full(objects(type=kinds, location=places))}, (0, 1, 3)[
            number
        ]
    if task == "dsprites_location":
        return {"label_x_position": (0, 17, 31)[number]}, (0, 8, 15)[number]
    if task == "dsprites_orientation":
        return {"label_orientation": (2, 5, 39)[number]}, (0, 2, 15)[number]
    if task == "smallnorb_azimuth":
        return {"label_azimuth": (0, 9, 17)[number]}, (0, 9, 17)[number]
    if task == "smallnorb_elevation":
        return {"label_elevation": (0, 4, 8)[number]}, (0, 4, 8)[number]
    label = (0, CLASSES[task] // 2, CLASSES[task] - 1)[number]
    return {"label": label}, label


def prepare(task, data_dir):
    """Three records at the start of each part; returns {part: labels by hand}."""
    name = vtab.VTAB_1K[task].tfds.name
    features = tfds.builder(name, data_dir=data_dir).info.features
    splits = {split: (count, {}) for split, count in SPLITS[task].items()}
    expected = {}
    for offset, (part, (split, start)) in enumerate(starts(task).items()):
        expected[part] = []
        for position in range(3):
            given, label = labelled(task, features, (position + offset) % 3)
            shape = [size or 6 for size in features["image"].shape]
            pixels = np.zeros(shape, np.uint8)
            pixels[0, 1:] = 1 if task.startswith("dsprites") else 40 * offset + position
            given["image"] = tfds_files.png(pixels)
            record = tfds_files.example(features, **given)
            splits[split][1][start + position] = record
            expected[part].append(label)
    tfds_files.write(data_dir, name, splits)
    return expected


@pytest.mark.parametrize("name", vtab.VTAB_1K)
def test_a_task_reads_the_benchmark_s_slices(name, tmp_path):
    expected = prepare(name, str(tmp_path))
    task, data_dir = data.get_task(name), str(tmp_path)
    shape = tfds.builder(vtab.VTAB_1K[name].tfds.name).info.features["image"].shape
    sizes = {"train": 800, "val": 200, "trainval": 1000}
    sizes["test"] = TEST.get(name, (0, 0, SPLITS[name].get("test")))[2]
    for part, (split, start) in starts(name).items():
        source = task.source(part, data_dir)
        assert len(source) == sizes[part]
        examples = task.load(part, data_dir, limit=3)
        assert examples.labels.tolist() == expected[part]
        stem = vtab.VTAB_1K[name].tfds.name.split("/")[0].split(":")[0]
        assert examples.ids == tuple(
            f"{stem}/{split}/{start + i:06d}" for i in range(3)
        )
        height, width, channels = (size or 6 for size in shape)
        assert examples.images.shape == (3, height, width, 3)
        assert examples.images.dtype == np.uint8
        marks = examples.images[:, 0, 1].tolist()
        offset = 40 * list(starts(name)).index(part)
        values = [255] * 3 if name.startswith("dsprites") else range(offset, offset + 3)
        assert marks == [[value] * 3 for value in values]
        later = task.load(part, data_dir, start=1, limit=1)
        assert later.ids == examples.ids[1:2]
        assert later.labels.tolist() == expected[part][1:2]
    assert len(task.source("trainval", data_dir)) == 1000
    classes = task.class_names(data_dir)
    assert len(classes) == len(set(classes)) == task.num_classes
    one_step.train_a_step(task, data_dir)


@pytest.mark.parametrize("name", vtab.VTAB_1K)
def test_the_builder_s_own_metadata_fits_the_row(name, tmp_path):
    row = vtab.VTAB_1K[name]
    builder = tfds.builder(row.tfds.name, data_dir=str(tmp_path))
    assert str(builder.version) == row.tfds.name.split(":")[1]
    features = builder.info.features
    assert features["image"].np_dtype == np.uint8
    assert features["image"].shape[-1] == (1 if row.scale > 1 or "norb" in name else 3)
    if isinstance(row.names, str):
        assert features[row.names].num_classes == row.num_classes
    sources = {"label_x_position": 32, "label_orientation": 40}
    for key, count in sources.items():
        assert key not in features or features[key].num_classes == count
    if name == "kitti_distance":
        kinds = features["objects"].feature["type"].names
        assert kinds[:3] == ["Car", "Van", "Truck"]


def test_the_table_is_the_benchmark_s():
    tasks = {name: data.get_task(name) for name in vtab.VTAB_1K}
    assert {name: task.num_classes for name, task in tasks.items()} == CLASSES
    assert {task.preset for task in tasks.values()} == {"vpt"}
    assert data.task_names("natural") == NATURAL
    assert data.task_names("specialized") == SPECIALIZED
    assert len(data.task_names("structured")) == 8
    assert data.task_names("all") == tuple(vtab.VTAB_1K) and len(CLASSES) == 19
    assert data.task_names("fgvc") == tuple(fgvc.FGVC)
    assert data.task_names("digits") == ("digits",)
    with pytest.raises(UserError, match="'natural' stands for 7 tasks.*cifar100"):
        data.get_task("natural")


def test_prompt_lengths_give_the_paper_s_ratios():
    """Tuned / total [%] of Tables 13 and 14, ViT-B/16 with 85,798,656 parameters."""
    published = {
        **{"cifar100": (0.18, 0.20), "caltech101": (0.10, 0.20), "dtd": (0.04, 0.15)},
        **{"flowers102": (0.27, 0.10), "pets": (0.08, 0.04), "svhn": (0.19, 0.54)},
        **{"sun397": (0.36, 0.41), "patch_camelyon": (0.01, 1.06)},
        **{"eurosat": (0.05, 1.07), "resisc45": (0.09, 0.15)},
        **{"retinopathy": (0.01, 0.02), "clevr_count": (0.10, 0.54)},
        **{"clevr_distance": (0.18, 2.11), "dmlab": (0.09, 1.07)},
        **{"kitti_distance": (0.09, 0.54), "dsprites_location": (0.10, 0.12)},
        **{"dsprites_orientation": (0.10, 0.55), "smallnorb_azimuth": (0.19, 2.12)},
        **{"smallnorb_elevation": (0.19, 2.11), "cub": (0.31, 0.29)},
        **{"nabirds": (0.54, 1.02), "oxford_flowers": (0.23, 0.14)},
        **{"stanford_dogs": (0.20, 1.17), "stanford_cars": (0.26, 2.27)},
    }
    for name, ratios in published.items():
        task = data.get_task(name)
        for length, layers, ratio in zip(
            task.prompt_lengths, (1, 12), ratios, strict=True
        ):
            tuned = layers * length * 768 + 769 * task.num_classes
            percent = 100 * tuned / (85_798_656 + tuned)
            assert percent == pytest.approx(ratio, abs=0.0051), (name, layers)


# ---- label rules at their borders


def clevr(*depths):
    return {"objects": {"pixel_coords": [np.float32((0, 0, d)) for d in depths]}}


def kitti(*pairs):
    places = [np.float32((50, 50, depth)) for _, depth in pairs]
    return {"objects": {"type": [kind for kind, _ in pairs], "location": places}}


def test_clevr_rules():
    counts = [vtab.clevr_count(clevr(*range(n))) for n in range(3, 11)]
    assert counts == list(range(8))
    # an edge belongs to the bin below it
    depths = (7.9, 8.0, 8.1, 8.5, 8.6, 9.0, 9.4, 9.5, 9.7, 10.0, 10.1, 50.0)
    labels = [vtab.clevr_distance(clevr(60.0, d, 70.0)) for d in depths]
    assert labels == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_kitti_rule():
    depths = (-5.0, 8.0, 8.1, 20.0, 20.1, 998.0)
    labels = [vtab.kitti_distance(kitti((0, d), (3, -50.0))) for d in depths]
    assert labels == [0, 0, 1, 1, 2, 2]
    assert vtab.kitti_distance(kitti((0, 30.0), (1, 10.0), (2, 15.0))) == 1
    assert vtab.kitti_distance(kitti((3, 1.0))) == 3
    assert vtab.kitti_distance(kitti()) == 3


def test_dsprites_rules():
    bins = [
        vtab.dsprites_location({"label_x_position": np.int64(x)}) for x in range(32)
    ]
    assert bins == [x // 2 for x in range(32)]
    bins = [
        vtab.dsprites_orientation({"label_orientation": np.int64(x)}) for x in range(40)
    ]
    assert [bins.count(b) for b in range(16)] == [3, 2] * 8
    assert bins == sorted(bins)


# ---- what is read, and what is not


def test_only_what_is_asked_for_is_decoded(tmp_path):
    expected = prepare("clevr_count", str(tmp_path))
    source = data.get_task("clevr_count").source("train", str(tmp_path))
    # Records 3 to 799 are not even there.
    part = source.select([2, 0])
    assert len(part) == 2 and part.ids[0] == "clevr/train/000002"
    assert part.labels.tolist() == [expected["train"][2], expected["train"][0]]
    first, again = part.read([0, 1]), pickle.loads(pickle.dumps(part)).read([0, 1])
    np.testing.assert_array_equal(first, again)
    assert first[0][0, 1, 0] == 2 and first[1][0, 1, 0] == 0
    with pytest.raises(UserError, match="cannot read record 3 of split 'train'"):
        source.read([3])


def test_labels_need_no_image(tmp_path):
    features = tfds.builder("dtd:3.0.1", data_dir=str(tmp_path)).info.features
    record = tfds_files.example(features, image=b"not an image", label=5)
    tfds_files.write(str(tmp_path), "dtd:3.0.1", {"train": (1880, {0: record})})
    source = data.get_task("dtd").source("train", str(tmp_path)).select([0])
    assert source.labels.tolist() == [5]
    with pytest.raises(UserError, match="cannot read record 0"):
        source.read([0])


def test_a_start_outside_and_a_label_outside(tmp_path):
    prepare("dtd", str(tmp_path))
    task = data.get_task("dtd")
    with pytest.raises(UserError, match="start=800 is outside its 800 examples"):
        task.load("train", str(tmp_path), start=800)
    wrong = vtab.make_task(
        "few", vtab.VtabTask(**{**vars(vtab.VTAB_1K["dtd"])} | {"num_classes": 40})
    )
    message = "task few, train: example dtd/train/000002 has label 46.*0 to 39"
    with pytest.raises(UserError, match=message):
        wrong.load("train", str(tmp_path), limit=3)


def test_caltech101_with_one_image_less(tmp_path):
    features = tfds.builder("caltech101:3.0.2", data_dir=str(tmp_path)).info.features
    records = {2_753: tfds_files.example(features)}
    splits = {"train": (3_059, records)}
    tfds_files.write(str(tmp_path), "caltech101:3.0.2", splits)
    source = data.get_task("caltech101").source("val", str(tmp_path))
    assert len(source) == 200 and source.ids[0] == "caltech101/train/002753"


def test_the_paper_s_kitti_is_read_where_it_lies(tmp_path):
    features = tfds.builder("kitti:3.2.0", data_dir=str(tmp_path)).info.features
    records = {0: tfds_files.example(features)}
    tfds_files.write(str(tmp_path), "kitti:3.2.0", {"train": (6_347, records)})
    examples = data.get_task("kitti_distance").load("train", str(tmp_path), limit=1)
    assert examples.labels.tolist() == [3]


@pytest.mark.parametrize("split", ["train", "val", "trainval", "test"])
def test_missing_data_says_how_to_prepare_it(tmp_path, split):
    task = data.get_task("cifar100")
    with pytest.raises(UserError, match="task cifar100.*--mode prepare"):
        task.load(split, str(tmp_path))
    with pytest.raises(UserError, match="task cifar100.*--mode prepare"):
        task.class_names(str(tmp_path))


def test_another_version_is_named(tmp_path):
    (tmp_path / "oxford_iiit_pet" / "3.2.0").mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"4\.0\.0 is not.*\(there is version 3\.2\.0\)"
    ):
        data.get_task("pets").load("train", str(tmp_path))
    assert reading.find(vtab.VTAB_1K["pets"].tfds, str(tmp_path))[0] == "missing"
