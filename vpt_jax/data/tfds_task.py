"""Any TFDS image classification set by its name, with all its images.

Splits: TFDS's own 'train', 'validation' and 'test' where there are three. With two,
the second is for testing and every tenth training record (0, 10, 20, ...) is for
validation. With 'train' alone, records 0, 10, 20, ... are for testing and 1, 11, ...
for validation. Records count in the order that TFDS shuffled them to.
"""

import functools
import operator

import numpy as np

from vpt_jax.data import reading
from vpt_jax.data.reading import Records, TfdsSet
from vpt_jax.data.tasks import Task
from vpt_jax.errors import UserError

PREFIX = "tfds:"


def make_task(name: str, data_dir: str | None = None) -> Task:
    """The task of a TFDS name, e.g. 'food101' or 'eurosat/rgb:2.0.0'."""
    tfds_set = TfdsSet(name)
    _, builder = reading.find(tfds_set, data_dir)
    if builder is None:
        raise UserError(
            f"TFDS has no data set, config or version {name!r}, and "
            f"{reading.directory(data_dir)} holds none; names are listed at "
            f"https://www.tensorflow.org/datasets/catalog"
        )
    image, label = _features(builder)
    num_classes = builder.info.features[label].num_classes
    return Task(
        name=PREFIX + name,
        group="tfds",
        num_classes=num_classes,
        part=functools.partial(_part, tfds_set, image, label),
        class_names=functools.partial(_class_names, tfds_set, label),
        tfds=tfds_set,
    )


def every_tenth(source: Records, first: int) -> np.ndarray:
    """The numbers first, first + 10, ..."""
    return np.arange(first, len(source), 10)


def hold_out(source: Records, part: str, firsts: tuple[int, ...]) -> Records:
    """Records that are kept from training, or all others.

    Args:
      source: a whole training split.
      part: 'val', 'test' (the tenth that starts at the first and the second of
        `firsts`) or 'train' (the rest).
      firsts: where each tenth that is kept from training starts.
    """
    tenths = [every_tenth(source, first) for first in firsts]
    if part != "train":
        return source.select(tenths[("val", "test").index(part)])
    rest = np.setdiff1d(np.arange(len(source)), np.concatenate(tenths))
    return source.select(rest)


def _part(
    tfds_set: TfdsSet, image: str, label: str, part: str, data_dir: str | None
) -> Records:
    name = PREFIX + tfds_set.name
    builder = reading.open_builder(name, tfds_set, data_dir)
    splits = set(builder.info.splits)
    if "train" not in splits:
        raise UserError(
            f"task {name}: TFDS has the splits {', '.join(sorted(splits))} of it, but "
            f"no 'train'"
        )
    read = functools.partial(
        reading.read_slice,
        builder,
        label=operator.itemgetter(label),
        image_key=image,
    )
    own = {"train": "train"} | {
        ours: theirs
        for ours, theirs in (("val", "validation"), ("test", "test"))
        if theirs in splits
    }
    if len(own) == 3:
        return read(own[part])
    if len(own) == 1:
        return hold_out(read("train"), part, (1, 0))
    if part == "test":
        return read(own.get("test", "validation"))
    return hold_out(read("train"), part, (0,))


def _features(builder) -> tuple[str, str]:
    """Names of the image and of the label."""
    import tensorflow_datasets as tfds

    features, keys = dict(builder.info.features), builder.info.supervised_keys
    image, label = keys[:2] if keys and len(keys) == 2 else ("image", "label")
    if (
        not isinstance(image, str)
        or not isinstance(label, str)
        or not isinstance(features.get(image), tfds.features.Image)
        or not isinstance(features.get(label), tfds.features.ClassLabel)
    ):
        raise UserError(
            f"TFDS set {builder.name} has no image with a class label; its features "
            f"are {', '.join(features)}"
        )
    return image, label


def _class_names(
    tfds_set: TfdsSet, label: str, data_dir: str | None
) -> tuple[str, ...]:
    builder = reading.open_builder(PREFIX + tfds_set.name, tfds_set, data_dir)
    return tuple(builder.info.features[label].names)
