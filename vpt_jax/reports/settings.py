"""The winners of sweeps as settings that other runs can take up."""

import pathlib

from vpt_jax import tuned
from vpt_jax.errors import UserError
from vpt_jax.reports.collect import Run, collect
from vpt_jax.storage.files import write_text
from vpt_jax.storage.paths import Folder


def add(root: Folder, file: pathlib.Path) -> int:
    """Add the winner of every finished sweep below `root` to a table; returns how many.

    Rows of the same task, method, backbone and image size are replaced, others stay.
    Variants of ablations are no settings of a method.

    Raises:
        UserError: No finished sweep there, or the file is no such table.
    """
    known = tuned.read(file) if file.exists() else []
    runs, _ = collect(root)
    found = [_row(run, root) for run in runs if run.swept and not run.variant]
    if not found:
        raise UserError(f"--workdir {root} holds no finished sweep for --tuned {file}")
    try:
        write_text(file, tuned.text([*known, *found]))
    except OSError as error:
        raise UserError(f"--tuned {file} cannot be written: {error}") from error
    return len(found)


def _row(run: Run, root: Folder) -> tuned.Row:
    content, chosen = run.result, run.result["sweep"]
    folder = run.path.resolve().relative_to(root.resolve().parent).as_posix()
    assert run.validation is not None  # what it was chosen by
    return tuned.Row(
        task=run.task,
        method=run.method,
        backbone=run.backbone,
        image_size=content["image_size"],
        optimizer=content["optimizer"],
        base_lr=chosen["base_lr"],
        weight_decay=chosen["weight_decay"],
        head_start=run.head_start,
        options=tuned.options_text(content["method_options"]),
        epochs=content["epochs"],
        batch_size=content["batch_size"],
        metric=run.metric,
        val=round(run.validation, 4),
        source=f"{chosen['grid_trials']} trials in {folder}",
    )
