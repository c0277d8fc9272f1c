"""A task's images as a run uses them."""

import dataclasses

import numpy as np

from vpt_jax.data.source import Source
from vpt_jax.data.tasks import Task

TRAINED_ON = {
    "train800val200": "trainval",
    "trainval": "trainval",
    "train800": "train",
    "train": "train",
}
"""What `config.data.split` can say: with or without the validation images."""


@dataclasses.dataclass(frozen=True)
class Splits:
    """Which images are trained on, scored on the way, and tested on.

    Attributes:
        task: Whose images these are.
        directory: Where TFDS keeps its data; None: TFDS's own default.
        trained_on: 'train', or 'trainval' which leaves nothing to validate on.
        train_percent: Train on a random part, the same for all; None: on all.
        test_examples: Score only the first so many test images; None: all.
    """

    task: Task
    directory: str | None
    trained_on: str
    train_percent: float | None = None
    test_examples: int | None = None

    def training(self) -> Source:
        """Or the chosen part of them, in their order."""
        source = self.task.checked(self.trained_on, self.directory)
        if self.train_percent is None:
            return source
        # Drawn once for all: trials and methods are compared on the same images.
        order = np.random.default_rng(0).permutation(len(source))
        count = max(1, round(len(source) * self.train_percent / 100))
        return source.select(sorted(order[:count]))

    def validation(self) -> Source | None:
        """None where they are trained on."""
        if self.trained_on == "trainval":
            return None
        return self.task.checked("val", self.directory)

    def test(self) -> Source:
        """All, or the first few."""
        return self.task.checked("test", self.directory, limit=self.test_examples)

    def class_names(self) -> tuple[str, ...]:
        """The C names."""
        return self.task.class_names(self.directory)
