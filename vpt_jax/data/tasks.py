"""What a task is: a data set with its splits, labels and metric."""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np

from vpt_jax.data.examples import Examples
from vpt_jax.errors import UserError

SPLITS = ("train", "val", "trainval", "test")


class Load(Protocol):
    """Reads a split of a task, or the first `limit` examples of it and no others."""

    def __call__(
        self, split: str, data_dir: str | None, *, limit: int | None = None
    ) -> Examples: ...


@dataclasses.dataclass(frozen=True)
class Task:
    """A classification task.

    Attributes:
      name: what the user calls it, e.g. 'cifar100'.
      group: tasks whose results are averaged together, e.g. 'natural'.
      num_classes: C; labels are 0 to C - 1.
      metric: 'top1', or 'auc' (reported in addition, for two classes).
      load: reads one of `SPLITS`; 'trainval' is 'train' followed by 'val'.
      class_names: the C names, given the data directory.
      prompt_lengths: P of VPT-shallow and VPT-deep where none is chosen.
      preset: the preprocessing (`preprocess.PRESETS`) used where none is chosen.
    """

    name: str
    group: str
    num_classes: int
    metric: str
    load: Load
    class_names: Callable[[str | None], tuple[str, ...]]
    preset: str = "vpt"
    prompt_lengths: tuple[int, int] = (10, 10)


def load_split(
    read: Callable[[str, int | None], Examples], split: str, limit: int | None
) -> Examples:
    """Builds any of `SPLITS` from a reader of 'train', 'val' and 'test'.

    Args:
      read: `read(part, limit)` returns the first `limit` examples of a part, all of
        them for None.
      split: one of `SPLITS`.
      limit: how many examples to read, from the first; None for all.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")
    if limit is not None and limit < 1:
        raise UserError(f"limit={limit} reads no example: use None or at least 1")
    if split != "trainval":
        return read(split, limit)
    train = read("train", limit)
    if limit is not None and limit <= len(train):
        return train
    val = read("val", None if limit is None else limit - len(train))
    return Examples.concatenate(train, val)


def check_labels(examples: Examples, num_classes: int, where: str) -> None:
    """Raises UserError at the first label outside 0 to `num_classes` - 1.

    XLA clamps or drops an index out of range instead of failing, so a wrong label
    would train silently.
    """
    wrong = np.flatnonzero((examples.labels < 0) | (examples.labels >= num_classes))
    if wrong.size:
        raise UserError(
            f"{where}: example {examples.ids[wrong[0]]} has label "
            f"{examples.labels[wrong[0]]}, but labels must be 0 to {num_classes - 1}"
        )
