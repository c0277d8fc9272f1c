"""VTAB-1k: each task's 800 training, 200 validation and all test images.

Slices, class counts and label rules are those of task_adaptation, the benchmark's own
code. Slices count in the order of the TFDS files, which TFDS shuffled when it wrote
them: the same slice of a TFDS preparation is the same 1,000 images for everyone.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

from vpt_jax.data import reading
from vpt_jax.data.examples import Examples
from vpt_jax.data.tasks import Task, check_labels, load_split


@dataclasses.dataclass(frozen=True)
class VtabTask:
    """One row of the benchmark.

    Attributes:
      tfds_name: TFDS name and version.
      group: 'natural', 'specialized' or 'structured'.
      num_classes: C.
      val: the 200 validation images, a TFDS slice.
      test: the test images, a TFDS slice.
      train: the 800 training images, a TFDS slice.
      image_key: the record's feature that holds the image.
      label: from a decoded record to its class, 0 to C - 1.
      metric: see `tasks.Task`.
      prompt_lengths: P of VPT-shallow and VPT-deep behind the paper's ViT-B/16 rows,
        the members of its grid that give the printed tuned / total (appendix).
    """

    tfds_name: str
    group: str
    num_classes: int
    val: str
    test: str = "test"
    train: str = "train[:800]"
    image_key: str = "image"
    label: Callable[[Mapping[str, Any]], int] = operator.itemgetter("label")
    metric: str = "top1"
    prompt_lengths: tuple[int, int] = (10, 10)


VTAB_1K = {
    "cifar100": VtabTask(
        "cifar100:3.*.*",
        "natural",
        num_classes=100,
        val="train[45000:45200]",
        prompt_lengths=(100, 10),
    ),
}


def make_task(name: str, row: VtabTask) -> Task:
    """The task that a row describes."""
    return Task(
        name=name,
        group=row.group,
        num_classes=row.num_classes,
        metric=row.metric,
        prompt_lengths=row.prompt_lengths,
        load=functools.partial(_load, name, row),
        class_names=functools.partial(_class_names, name, row),
    )


def _load(
    name: str,
    row: VtabTask,
    split: str,
    data_dir: str | None,
    *,
    limit: int | None = None,
) -> Examples:
    def read(part: str, limit: int | None) -> Examples:
        builder = reading.open_builder(name, row.tfds_name, data_dir)
        return reading.read_examples(
            builder,
            getattr(row, part),
            image_key=row.image_key,
            label=row.label,
            limit=limit,
        )

    examples = load_split(read, split, limit)
    check_labels(examples, row.num_classes, where=f"task {name}, {split}")
    return examples


def _class_names(name: str, row: VtabTask, data_dir: str | None) -> tuple[str, ...]:
    builder = reading.open_builder(name, row.tfds_name, data_dir)
    return tuple(builder.info.features["label"].names)
