"""Data: tasks by name, reading, preprocessing."""

import functools
from collections.abc import Callable

from vpt_jax.data import digits, vtab
from vpt_jax.data.examples import Examples
from vpt_jax.data.tasks import Task, load_split
from vpt_jax.errors import UserError

_PROCEDURAL_PARTS = {"train": (120_000, 0), "val": (2_000, 1), "test": (5_000, 2)}


def _procedural() -> Task:
    """Rendered images: (number of images, seed) of each part in `_PROCEDURAL_PARTS`."""
    from vpt_jax.data import procedural  # only the pre-training of the tiny backbone

    def read(part: str, limit: int | None) -> Examples:
        num_images, seed = _PROCEDURAL_PARTS[part]
        # All of them: image i depends on how many are rendered with it.
        images, labels = procedural.render(num_images, seed)
        ids = tuple(f"procedural/{part}/{index:06d}" for index in range(num_images))
        return Examples(images[:limit], labels[:limit], ids[:limit])

    return Task(
        name="procedural",
        group="embedded",
        num_classes=procedural.NUM_CLASSES,
        metric="top1",
        load=lambda split, data_dir, *, limit=None: load_split(read, split, limit),
        class_names=lambda data_dir: tuple(map(str, range(procedural.NUM_CLASSES))),
    )


TASKS: dict[str, Callable[[], Task]] = {
    **{
        name: functools.partial(vtab.make_task, name, row)
        for name, row in vtab.VTAB_1K.items()
    },
    "digits": digits.make_task,
    "procedural": _procedural,
}


def get_task(name: str) -> Task:
    """The task of that name."""
    if name not in TASKS:
        raise UserError(f"unknown task {name!r}: use one of {', '.join(TASKS)}")
    return TASKS[name]()
