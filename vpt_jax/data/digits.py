"""Handwritten digits that come with scikit-learn: a real task without a download.

1,797 images of 8x8 pixels, the test part of the UCI "Optical Recognition of Handwritten
Digits" data (Alpaydin and Kaynak, 1998). The file keeps each writer's digits together,
so a split in file order tests on writers who were mostly not trained on.
"""

import numpy as np

from vpt_jax.data.examples import Examples
from vpt_jax.data.tasks import Task

NUM_CLASSES = 10
_PARTS = {"train": (0, 800), "val": (800, 1000), "test": (1000, 1797)}


def make_task() -> Task:
    """The task 'digits'."""
    return Task(
        name="digits",
        group="embedded",
        num_classes=NUM_CLASSES,
        part=part,
        class_names=class_names,
    )


def class_names(data_dir: str | None) -> tuple[str, ...]:
    """'0' to '9'."""
    return tuple(str(digit) for digit in range(NUM_CLASSES))


def part(name: str, data_dir: str | None) -> Examples:
    """'train', 'val' or 'test'; `data_dir` is not looked at: scikit-learn has them."""
    from sklearn.datasets import load_digits  # a slow import that only this task needs

    start, stop = _PARTS[name]
    values, labels = load_digits(return_X_y=True)
    grey = np.rint(values[start:stop].reshape(-1, 8, 8, 1) * (255 / 16))
    return Examples(
        images=np.repeat(grey.astype(np.uint8), 3, axis=-1),
        labels=labels[start:stop].astype(np.int32),
        ids=tuple(f"digits/{index:04d}" for index in range(start, stop)),
    )
