"""Classify image files with one tuned model or many, or label their pixels."""

import csv
import itertools
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from vpt_jax.data.examples import Image
from vpt_jax.data.images import SUFFIXES, find_images, read_image
from vpt_jax.errors import UserError
from vpt_jax.progress import say
from vpt_jax.serving import paint
from vpt_jax.serving.bank import Bank
from vpt_jax.serving.classifier import Classifier
from vpt_jax.serving.segmenter import numbers
from vpt_jax.serving.tasks import Task
from vpt_jax.storage.cache import at_hand
from vpt_jax.storage.files import whole
from vpt_jax.storage.paths import Folder

GROUP = 256  # images decoded at a time
Decoded = list[tuple[pathlib.Path, Image]]


def predict_files(
    model: Classifier, images: Iterable[str], output: Folder
) -> tuple[int, list[Folder]]:
    """Classify files, and all images below folders; or label their pixels, as pictures
    in a folder beside `output`.

    Args:
        model: From `vpt_jax.load`.
        images: Files and folders.
        output: `.csv` or `.json`, replaced as a whole.

    Returns:
        How many were classified, and the files that could not be decoded.

    Raises:
        UserError: Nothing to classify, or another ending than these two.
    """
    columns, row = _shown(model, output.with_suffix(""))

    def rows(decoded: Decoded) -> Iterator[tuple]:
        found = model.predict([image for _, image in decoded])
        for of_image, one in zip(decoded, found, strict=True):
            yield row(*of_image, one)

    return _predict(images, output, columns, rows)


def predict_tasks(
    bank: Bank, images: Iterable[str], output: Folder
) -> tuple[int, list[Folder]]:
    """The same for all tasks of a bank in one pass: a group of columns for each.

    Columns are named 'pets class', 'pets probability'; pictures of the task 'pets' are
    in a folder of that name.
    """
    tasks = list(bank.tasks.values())
    shown = [_shown(task, output.with_suffix("") / task.name) for task in tasks]
    columns = tuple(
        f"{task.name} {column}"
        for task, (columns, _) in zip(tasks, shown, strict=True)
        for column in columns
    )

    def rows(decoded: Decoded) -> Iterator[tuple]:
        every = [image for _, image in decoded for _ in tasks]
        names = [task.name for _ in decoded for task in tasks]
        found = iter(bank.predict(every, names))
        for of_image in decoded:
            parts = [row(*of_image, next(found)) for _, row in shown]
            yield tuple(itertools.chain(*parts))

    return _predict(images, output, columns, rows)


def _shown(
    tuned: Classifier | Task, folder: Folder
) -> tuple[tuple[str, ...], Callable[[pathlib.Path, Image, np.ndarray], tuple]]:
    """The columns of a tuned task, and what they hold of a file, its image and what
    was predicted of it; pictures go to `folder`."""
    objective, names = tuned.network.objective, tuned.classes
    if objective.DENSE:
        album = paint.Album(folder, names, numbers(tuned.manifest))
        return paint.COLUMNS, album.add
    return objective.COLUMNS, lambda path, image, found: objective.row(found, names)


def _predict(
    images: Iterable[str],
    output: Folder,
    columns: tuple[str, ...],
    rows_of: Callable[[Decoded], Iterator[tuple]],
) -> tuple[int, list[Folder]]:
    """A row for each file, of what `rows_of` gives for files with their images."""
    if output.suffix not in (".csv", ".json"):
        raise UserError(f"--output {output} must end in .csv or .json")
    paths = list(_files(images))
    if not paths:
        raise UserError(
            f"no image under {', '.join(images)}; known endings: "
            f"{', '.join(sorted(SUFFIXES))}"
        )
    rows, broken = [], []
    for start in range(0, len(paths), GROUP):
        decoded = []
        for path in paths[start : start + GROUP]:
            try:
                decoded.append((path, read_image(path)))
            except UserError as error:
                say(f"skipped {error}")
                broken.append(path)
        for (path, _), row in zip(decoded, rows_of(decoded), strict=True):
            rows.append((str(path), *row))
    _write(output, ("path", *columns), rows)
    return len(rows), broken


def _files(images: Iterable[str]) -> Iterator[pathlib.Path]:
    for name in images:
        path = at_hand(name)
        if path.is_dir():
            found, hidden = find_images(path)
            if hidden:
                say(f"{path}: skipped {hidden} hidden files and folders")
            yield from found
        elif path.exists():
            yield path
        else:
            raise UserError(f"--images {name} does not exist")


def _write(output: Folder, columns: tuple[str, ...], rows: list[tuple]) -> None:
    with whole(output) as temporary, open(temporary, "w", newline="") as file:
        if output.suffix == ".json":
            json.dump(
                [dict(zip(columns, r, strict=True)) for r in rows], file, indent=1
            )
        else:
            csv.writer(file).writerows([columns, *rows])
