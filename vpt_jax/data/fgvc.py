"""The five fine-grained tasks of the VPT paper, with all their images.

Where `DIR/TASK/train.json` (or `DIR/train.json`) exists, DIR being `config.data.dir`,
the split is the authors': three files that map an image's path to its class. Otherwise
TFDS data is read, and where it has no validation split, training records 0, 10, 20, ...
in TFDS's order are set aside for it. Sizes are the paper's in both cases, the images of
train and val are not.

Classes are the sorted ids of all three files together. Deviation: the public code
sorts the ids of each file by itself, so a class that one file lacks shifts its labels.
"""

import dataclasses
import functools
import json
import operator
import pathlib

import numpy as np

from vpt_jax.data import reading
from vpt_jax.data.reading import TfdsSet
from vpt_jax.data.source import Files, Source
from vpt_jax.data.tasks import Task
from vpt_jax.data.tfds_task import hold_out
from vpt_jax.errors import UserError
from vpt_jax.storage.cache import at_hand
from vpt_jax.storage.paths import located

PARTS = ("train", "val", "test")
_JSON = "train.json, val.json and test.json of the authors' release"


@dataclasses.dataclass(frozen=True)
class FgvcTask:
    """One data set.

    Attributes:
      num_classes: C.
      prompt_lengths: P of VPT-shallow and VPT-deep behind the paper's ViT-B/16 rows.
        The printed shallow ratios of CUB and Oxford Flowers need 150, which is not in
        the paper's grid.
      images: where the authors' paths start, below the folder with the JSON files.
      tfds: None where TFDS does not have it.
      val: TFDS's validation split, if it has one.
    """

    num_classes: int
    prompt_lengths: tuple[int, int]
    images: str = ""
    tfds: TfdsSet | None = None
    val: str | None = None


FGVC = {
    "cub": FgvcTask(
        200, (150, 10), "images", TfdsSet("caltech_birds2011:0.2.0", gigabytes=1.3)
    ),
    "nabirds": FgvcTask(555, (50, 50), "images"),
    "oxford_flowers": FgvcTask(
        102,
        (150, 5),
        "",
        TfdsSet("oxford_flowers102:2.1.1", gigabytes=0.4),
        val="validation",
    ),
    "stanford_dogs": FgvcTask(
        120, (100, 100), "Images", TfdsSet("stanford_dogs:0.2.0", gigabytes=0.9)
    ),
    "stanford_cars": FgvcTask(
        196,
        (100, 200),
        "",
        TfdsSet(
            "cars196:2.1.0",
            gigabytes=2.1,
            by_hand="the address that TFDS knows (ai.stanford.edu) is dead. Get "
            "cars_train.tgz (979,269,282 bytes), cars_test.tgz (977,350,468), "
            "car_devkit.tgz (330,960) and cars_test_annos_withlabels.mat (185,758) of "
            "the original release from a mirror and put them, unopened, into {manual}; "
            "TFDS compares their sha256 and uses them instead of downloading",
            must_exist="cars_train.tgz",
        ),
    ),
}


def make_task(name: str, row: FgvcTask) -> Task:
    """The task that a row describes."""
    return Task(
        name=name,
        group="fgvc",
        num_classes=row.num_classes,
        preset="vpt_fgvc",
        prompt_lengths=row.prompt_lengths,
        part=functools.partial(_part, name, row),
        class_names=functools.partial(_class_names, name, row),
        tfds=row.tfds,
        manual=f"put the images and {_JSON} into DIR/{name} and give "
        f"--config.data.dir=DIR",
    )


def find_json(name: str, data_dir: str | None) -> pathlib.Path | None:
    """The folder with the authors' JSON files, if there is one."""
    root = located(reading.directory(data_dir))
    found = [p for p in (root / name, root) if (p / "train.json").exists()]
    return at_hand(found[0]) if found else None


def _part(name: str, row: FgvcTask, part: str, data_dir: str | None) -> Source:
    root = find_json(name, data_dir)
    if root is not None:
        return _read_json(name, row, root)[0][part]
    builder = _builder(name, row, data_dir)
    read = functools.partial(
        reading.read_slice, builder, label=operator.itemgetter("label")
    )
    if part == "test":
        return read("test")
    if row.val is None:
        return hold_out(read("train"), part, (0,))
    return read(row.val if part == "val" else "train")


def _class_names(name: str, row: FgvcTask, data_dir: str | None) -> tuple[str, ...]:
    root = find_json(name, data_dir)
    if root is not None:
        return _read_json(name, row, root)[1]
    builder = _builder(name, row, data_dir)
    return tuple(builder.info.features["label"].names)


def _builder(name: str, row: FgvcTask, data_dir: str | None):
    """The TFDS builder of a task without JSON files."""
    if row.tfds is None:
        where = reading.directory(data_dir)
        raise UserError(
            f"task {name}: TFDS does not have it, and there is no train.json in "
            f"{where}/{name}; put the images and {_JSON} there, or give "
            f"--config.data.dir"
        )
    return reading.open_builder(name, row.tfds, data_dir)


def _read_json(
    name: str, row: FgvcTask, root: pathlib.Path
) -> tuple[dict[str, Files], tuple[str, ...]]:
    """The three parts, and the ids that are the class names."""
    content = {part: _read_object(root / f"{part}.json") for part in PARTS}
    values = [value for paths in content.values() for value in paths.values()]
    if {type(value) for value in values} not in ({int}, {str}):
        raise UserError(
            f"{root}: class ids must be all numbers or all strings in {_JSON}"
        )
    ids = set(values)
    if len(ids) != row.num_classes:
        raise UserError(
            f"task {name}: the JSON files of {root} have {len(ids)} classes together, "
            f"but it must be {row.num_classes}"
        )
    classes = sorted(ids)
    label_of = {value: label for label, value in enumerate(classes)}
    parts = {}
    for part, paths in content.items():
        files = [_locate(root, row.images, path, part) for path in paths]
        labels = np.array([label_of[value] for value in paths.values()], np.int32)
        parts[part] = Files(tuple(files), labels, tuple(paths))
    return parts, tuple(map(str, classes))


def _read_object(path: pathlib.Path) -> dict:
    if not path.is_file():
        raise UserError(f"there is no {path}; {_JSON} are needed")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error})") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} must map image paths to classes")
    return content


def _locate(root: pathlib.Path, below: str, path: str, part: str) -> pathlib.Path:
    candidates = [root / below / path, root / path]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UserError(f"{root / part}.json names {path}: there is no {candidates[0]}")
