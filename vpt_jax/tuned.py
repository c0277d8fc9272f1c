"""Settings that travel: a table of what sweeps chose, which single runs take up.

A row is the winner of a sweep for a task, a method, a backbone and an image size.
`--mode report --tuned FILE` writes rows; `tuned` in the argument of a config file reads
one of configs/tuned.csv.
"""

import csv
import dataclasses
import io
import pathlib
import typing
from collections.abc import Iterable

from vpt_jax import backbones, data, methods
from vpt_jax.errors import UserError
from vpt_jax.types import Config, literal


@dataclasses.dataclass(frozen=True, order=True)
class Row:
    """What a sweep chose.

    Attributes:
        task, method, backbone, image_size: What it is for; the method as reports name
            it, a folder of images by its own name alone.
        optimizer: Of `training.optim`.
        base_lr: Per 256 images.
        weight_decay: Of that optimizer.
        head_start: Of `training.head_start.HEAD_STARTS`.
        options: Of the method: 'deep=True length=10'.
        epochs, batch_size: Of the winner's runs.
        metric, val: Score on the validation images, and what it is.
        source: Which sweep.
    """

    task: str
    method: str
    backbone: str
    image_size: int
    optimizer: str
    base_lr: float
    weight_decay: float
    head_start: str
    options: str
    epochs: int
    batch_size: int
    metric: str
    val: float
    source: str

    @property
    def place(self) -> tuple:
        """What a table has one row of."""
        return self.task, self.method, self.backbone, self.image_size


_FIELDS = typing.get_type_hints(Row)


def read(path: pathlib.Path) -> list[Row]:
    """The rows of a table.

    Raises:
        UserError: No such file, or no such table.
    """
    try:
        lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table: {error}") from error
    if not lines or lines[0] != list(_FIELDS):
        raise UserError(
            f"{path} is no table of tuned settings, whose header is {','.join(_FIELDS)}"
        )
    rows = []
    for number, cells in enumerate(lines[1:], 2):
        try:
            pairs = zip(_FIELDS.items(), cells, strict=True)
            rows.append(Row(**{name: kind(cell) for (name, kind), cell in pairs}))
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from error
    return rows


def text(rows: Iterable[Row]) -> str:
    """The table of these rows, sorted; of several for a place the last."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_FIELDS)
    of_places = {row.place: row for row in rows}
    writer.writerows(dataclasses.astuple(row) for row in sorted(of_places.values()))
    return out.getvalue()


def options_text(options: dict) -> str:
    """'deep=True length=10': those that have a value, as `apply` reads them."""
    return " ".join(f"{k}={v}" for k, v in sorted(options.items()) if v is not None)


def apply(config: Config, path: pathlib.Path) -> None:
    """Give a configuration the settings of its row.

    Where there are several image sizes: those nearest to the backbone's own.

    Raises:
        UserError: There is no row for its task, method and backbone.
    """
    rows = read(path)
    task, backbone = data.portable_name(config.task), config.backbone.name
    own = backbones.get_config(backbone, None).image_size
    fitting = [
        row
        for name in _names(config.method.name)
        for row in sorted(rows, key=lambda row: abs(row.image_size - own))
        if (row.task, row.method, row.backbone) == (task, name, backbone)
    ]
    if not fitting:
        raise UserError(_missing(rows, task, config.method.name, backbone, path))
    row = fitting[0]
    config.optim.name, config.optim.base_lr = row.optimizer, row.base_lr
    config.optim.weight_decay = row.weight_decay
    config.optim.head_start = row.head_start
    for pair in row.options.split():
        key, _, value = pair.partition("=")
        if key not in config.method:
            raise UserError(f"{path}: {row.method} on {row.task}: no option {key!r}")
        config.method[key] = literal(value)


def _names(method: str) -> list[str]:
    """What the table may call it: 'adapter' of any reduction, then 'adapter-8'."""
    name, given = methods.named(method)
    options = methods.options_of(methods.choose(name, given))
    return [method.replace("_", "-"), methods.label(name, options)]


def _missing(rows, task: str, method: str, backbone: str, path: pathlib.Path) -> str:
    """Which rows there are instead."""
    near = [row for row in rows if task == row.task or backbone == row.backbone]
    known = [f"{r.task},{r.method},{r.backbone} ({r.image_size} px)" for r in near]
    return (
        f"{path.name} has no row for {method} on {task} with {backbone}; of this task "
        f"or backbone it has {'; '.join(known) or 'none'}"
    )
