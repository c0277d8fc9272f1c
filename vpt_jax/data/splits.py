"""A task's images as a run uses them."""

import dataclasses

import numpy as np
from jaxtyping import Int

from vpt_jax.data.source import Source
from vpt_jax.data.tasks import Task
from vpt_jax.errors import UserError

TRAINED_ON = {
    "train800val200": "trainval",
    "trainval": "trainval",
    "train800": "train",
    "train": "train",
}
"""What `config.data.split` can say: with or without the validation images."""

HELD_OUT = 10  # one in so many


@dataclasses.dataclass(frozen=True)
class Splits:
    """Which images are trained on, scored on the way, and tested on.

    Attributes:
        task: Whose images these are.
        directory: Where TFDS keeps its data; None: TFDS's own default.
        trained_on: 'train', or 'trainval' which leaves nothing to validate on.
        train_percent: Train on a random part, the same for all; None: on all.
        test_examples: Score only the first so many test images; None: all.
        held_out: Whether a tenth of the training images stands in for those that
            validate: what is tuned before the run sees no others.
    """

    task: Task
    directory: str | None
    trained_on: str
    train_percent: float | None = None
    test_examples: int | None = None
    held_out: bool = False

    def training(self) -> Source:
        """Or the chosen part of them, in their order."""
        source = self._given()
        if not self.held_out:
            return source
        rest = np.delete(np.arange(len(source)), tenth(source.labels))
        return source.select(rest)

    def _given(self) -> Source:
        source = self.task.checked(self.trained_on, self.directory)
        if self.train_percent is None:
            return source
        # Drawn once for all: trials and methods are compared on the same images.
        order = np.random.default_rng(0).permutation(len(source))
        count = max(1, round(len(source) * self.train_percent / 100))
        return source.select(sorted(order[:count]))

    def validation(self) -> Source | None:
        """None where they are trained on."""
        if self.held_out:
            source = self._given()
            return source.select(tenth(source.labels))
        if self.trained_on == "trainval":
            return None
        return self.task.checked("val", self.directory)

    def test(self) -> Source:
        """All, or the first few."""
        return self.task.checked("test", self.directory, limit=self.test_examples)

    def class_names(self) -> tuple[str, ...]:
        """The C names."""
        return self.task.class_names(self.directory)


def tenth(targets: Int[np.ndarray, "n *t"]) -> Int[np.ndarray, " k"]:
    """Every tenth image, in their order, drawn once for all and evenly over classes.

    Raises:
        UserError: There are fewer than ten.
    """
    if len(targets) < HELD_OUT:
        raise UserError(
            f"of {len(targets)} training images none can be held out to choose a "
            f"learning rate; give optim.lr a number, or at least {HELD_OUT} images"
        )
    _, kind = np.unique(targets.reshape(len(targets), -1), axis=0, return_inverse=True)
    shuffled = np.random.default_rng(0).permutation(len(targets))
    by_kind = shuffled[np.argsort(kind.reshape(-1)[shuffled], kind="stable")]
    return np.sort(by_kind[HELD_OUT - 1 :: HELD_OUT])
