"""Data: tasks by name, reading, preprocessing."""

import functools
from collections.abc import Callable

import numpy as np

from vpt_jax.data import (
    digits,
    digits_photo,
    fgvc,
    folder,
    mask_folder,
    mask_sets,
    tfds_task,
    vtab,
)
from vpt_jax.data.examples import Examples
from vpt_jax.data.tasks import Task
from vpt_jax.errors import UserError

_PROCEDURAL_PARTS = {"train": (120_000, 0), "val": (2_000, 1), "test": (5_000, 2)}


def _procedural(name: str, things: int) -> Task:
    """Rendered images: (number of images, seed) of each part in `_PROCEDURAL_PARTS`."""
    from vpt_jax.assets import procedural  # only the pre-training of the tiny backbone

    def part(part: str, data_dir: str | None) -> Examples:
        num_images, seed = _PROCEDURAL_PARTS[part]
        # All of them: image i depends on how many are rendered with it.
        images, labels = procedural.render(num_images, seed, things=things)
        ids = tuple(f"{name}/{part}/{index:06d}" for index in range(num_images))
        return Examples(images, labels.astype(np.int32), ids)

    return Task(
        name=name,
        group="embedded",
        num_classes=procedural.NUM_CLASSES,
        part=part,
        class_names=lambda data_dir: tuple(map(str, range(procedural.NUM_CLASSES))),
    )


TASKS: dict[str, Callable[[], Task]] = {
    **{
        name: functools.partial(vtab.make_task, name, row)
        for name, row in vtab.VTAB_1K.items()
    },
    **{
        name: functools.partial(fgvc.make_task, name, row)
        for name, row in fgvc.FGVC.items()
    },
    **mask_sets.TASKS,
    "digits": digits.make_task,
    "digits_photo": digits_photo.make_task,
    **{
        name: functools.partial(_procedural, name, things)
        for things, name in enumerate(("procedural", "procedural2", "procedural3"), 1)
    },
}

# What can stand for several tasks.
GROUPS: dict[str, tuple[str, ...]] = {
    **{
        group: tuple(n for n, row in vtab.VTAB_1K.items() if row.group == group)
        for group in vtab.GROUPS
    },
    "all": tuple(vtab.VTAB_1K),
    "fgvc": tuple(fgvc.FGVC),
}


def get_task(
    name: str, data_dir: str | None = None, ignored: tuple[int, ...] = ()
) -> Task:
    """The task of that name.

    Args:
      name: of `TASKS`, 'folder:PATH', 'masks:PATH' or 'tfds:NAME'.
      data_dir: the TFDS directory, for sets that only the disk knows.
      ignored: numbers of pixels without a class, in a folder of masks.
    """
    if name.startswith(mask_folder.PREFIX):
        return mask_folder.make_task(name.removeprefix(mask_folder.PREFIX), ignored)
    if ignored:
        raise UserError(f"data.ignored is for masks:PATH; {name} is none")
    if name.startswith(folder.PREFIX):
        return folder.make_task(name.removeprefix(folder.PREFIX))
    if name.startswith(tfds_task.PREFIX):
        return tfds_task.make_task(name.removeprefix(tfds_task.PREFIX), data_dir)
    if name in GROUPS:
        raise UserError(
            f"{name!r} stands for {len(GROUPS[name])} tasks, but one is needed here: "
            f"{', '.join(GROUPS[name])}"
        )
    if name not in TASKS:
        raise UserError(
            f"unknown task {name!r}: use one of {', '.join(TASKS)}, folder:PATH, "
            f"masks:PATH or tfds:NAME"
        )
    return TASKS[name]()


def portable_name(name: str) -> str:
    """The name without where it lies on this machine: 'folder:cats' of a path to it."""
    for prefix in (folder.PREFIX, mask_folder.PREFIX):
        if name.startswith(prefix):
            path = name.removeprefix(prefix)
            return prefix + path.rstrip("/").rpartition("/")[2]
    return name


def task_names(name: str) -> tuple[str, ...]:
    """The names of a group's tasks; of a single task its own."""
    return GROUPS.get(name, (name,))
