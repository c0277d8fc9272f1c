"""Classify image files with a tuned model, or label their pixels; write CSV or JSON."""

import csv
import json
import pathlib
from collections.abc import Iterable, Iterator

from vpt_jax.data.images import SUFFIXES, find_images, read_image
from vpt_jax.errors import UserError
from vpt_jax.progress import say
from vpt_jax.serving import paint
from vpt_jax.serving.classifier import Classifier
from vpt_jax.serving.segmenter import Segmenter
from vpt_jax.storage.cache import at_hand
from vpt_jax.storage.files import whole
from vpt_jax.storage.paths import Folder

GROUP = 256  # images decoded at a time


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
    if output.suffix not in (".csv", ".json"):
        raise UserError(f"--output {output} must end in .csv or .json")
    paths = list(_files(images))
    if not paths:
        raise UserError(
            f"no image under {', '.join(images)}; known endings: "
            f"{', '.join(sorted(SUFFIXES))}"
        )
    objective, rows, broken = model.network.objective, [], []
    taken: set[str] = set()
    for start in range(0, len(paths), GROUP):
        decoded = []
        for path in paths[start : start + GROUP]:
            try:
                decoded.append((path, read_image(path)))
            except UserError as error:
                say(f"skipped {error}")
                broken.append(path)
        if isinstance(model, Segmenter):
            answers = paint.write(model, decoded, output.with_suffix(""), taken)
        else:
            probabilities = model.predict([image for _, image in decoded])
            answers = (objective.row(one, model.classes) for one in probabilities)
        pairs = zip(decoded, answers, strict=True)
        rows += [(str(path), *answer) for (path, _), answer in pairs]
    columns = paint.COLUMNS if isinstance(model, Segmenter) else objective.COLUMNS
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
