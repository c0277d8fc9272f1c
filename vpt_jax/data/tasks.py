"""What a task is: a data set with its splits and labels, and what is predicted."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from types import ModuleType

from vpt_jax.data.examples import Examples
from vpt_jax.data.reading import TfdsSet
from vpt_jax.data.source import Joined, Source, to_examples
from vpt_jax.errors import UserError
from vpt_jax.objectives import OBJECTIVES

SPLITS = ("train", "val", "trainval", "test")


@dataclasses.dataclass(frozen=True)
class Task:
    """A data set to be tuned on.

    Attributes:
      name: what the user calls it, e.g. 'cifar100'.
      group: tasks whose results are averaged together, e.g. 'natural'.
      num_classes: C; labels are 0 to C - 1.
      kind: what is predicted, a key of `objectives.OBJECTIVES`.
      part: finds 'train', 'val' or 'test', given the data directory; decodes nothing.
      class_names: the C names, given the data directory.
      preset: the preprocessing (`preprocess.PRESETS`) used where none is chosen.
      prompt_lengths: P of VPT-shallow and VPT-deep where none is chosen.
      counts: images of 'train', 'val' and 'test', where known without the data.
      tfds: what must be prepared for it; None if it needs no TFDS data.
      manual: what to do where the data cannot be prepared; None if it always can.
      folder: finds where files lie that no preparation makes; None if it needs none.
      numbers: what masks call the classes; None for 0 to C - 1.
    """

    name: str
    group: str
    num_classes: int
    part: Callable[[str, str | None], Source]
    class_names: Callable[[str | None], tuple[str, ...]]
    preset: str = "vpt"
    prompt_lengths: tuple[int, int] = (10, 10)
    kind: str = "classification"
    counts: Mapping[str, int] | None = None
    tfds: TfdsSet | None = None
    manual: str | None = None
    folder: Callable[[str | None], pathlib.Path | None] | None = None
    numbers: tuple[int, ...] | None = None

    @property
    def objective(self) -> ModuleType:
        """Head, loss and scores of this kind of task."""
        return OBJECTIVES[self.kind]

    def source(self, split: str, data_dir: str | None) -> Source:
        """One of `SPLITS`, no image read yet; 'trainval' is 'train' and then 'val'.

        Whoever trains on it or scores it asks for it `checked`, which reads all
        labels.
        """
        if split not in SPLITS:
            raise UserError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")
        if split != "trainval":
            return self.part(split, data_dir)
        return Joined(self.part("train", data_dir), self.part("val", data_dir))

    def checked(
        self,
        split: str,
        data_dir: str | None,
        *,
        start: int = 0,
        limit: int | None = None,
    ) -> Source:
        """A split with labels known to be right, or `limit` examples from `start`."""
        if limit is not None and limit < 1:
            raise UserError(f"limit={limit} reads no example: use None or at least 1")
        source = self.source(split, data_dir)
        if not 0 <= start < len(source):
            raise UserError(
                f"task {self.name}, {split}: start={start} is outside its "
                f"{len(source)} examples"
            )
        stop = len(source) if limit is None else min(start + limit, len(source))
        if (start, stop) != (0, len(source)):
            source = source.select(range(start, stop))
        self._check(source, split)
        return source

    def load(self, split: str, data_dir: str | None, **which) -> Examples:
        """The examples of `checked`, decoded."""
        return to_examples(self.checked(split, data_dir, **which))

    def _check(self, source: Source, split: str) -> None:
        found = self.objective.wrong(source.labels, self.num_classes)
        if found is not None:
            index, problem = found
            raise UserError(
                f"task {self.name}, {split}: example {source.ids[index]} {problem}"
            )
