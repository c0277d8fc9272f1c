"""Tables of runs that give each pixel a class, and the paper's Table 3 beside them.

`data/paper_segmentation.csv` holds what was published of ADE20K with SETR-PUP on
ViT-L/16, mIoU at one scale and at several: the paper's Table 3, and what others
measured again or with their own methods (DA-VPT, SPT-LoRA, CVPT, and the model zoo of
mmsegmentation).
"""

import csv
import functools
import importlib.resources
import re
from typing import NamedTuple

from vpt_jax.objectives import segmentation
from vpt_jax.reports.collect import Comparison, Run
from vpt_jax.reports.table import Column, Table, build, number

TASK, BACKBONE, HEAD = "ade20k", "vit_l16", "pup"


class Published(NamedTuple):
    """A published row; mIoU in percent, tuned parameters in millions."""

    method: str
    who: str
    single: float
    several: float
    millions: float | None


@functools.cache
def published() -> tuple[Published, ...]:
    """Every row, in the order of the file."""
    path = importlib.resources.files("vpt_jax.reports") / "data"
    text = (path / "paper_segmentation.csv").read_text(encoding="utf-8")
    return tuple(
        Published(
            *(r["method"], r["who"], float(r["single"]), float(r["several"])),
            float(r["millions"]) if r["millions"] else None,
        )
        for r in csv.DictReader(text.splitlines())
    )


def table(comparison: Comparison) -> Table | None:
    """Every run with all that is measured; None for other kinds of tasks."""
    if comparison.metric != segmentation.METRIC:
        return None
    several = f"test_{comparison.metric}_several"
    columns = [
        Column[Run]("method", lambda run: run.method, left=True),
        Column[Run]("task", lambda run: run.task, left=True),
        Column[Run]("mIoU [%]", lambda run: number(run.score, 2)),
        Column[Run]("several scales", _of(several), "Several scales: each mirrored."),
        Column[Run]("pixel accuracy [%]", _of("test_pixel_accuracy")),
        Column[Run]("mean accuracy [%]", _of("test_mean_accuracy")),
        Column[Run]("tuned [M]", lambda run: _millions(run.result["trainable_params"])),
        Column[Run]("of that the head", lambda r: _millions(r.result["head_params"])),
        Column[Run]("epochs", lambda run: str(run.result["epochs"])),
        Column[Run]("train [s]", _of("train_seconds", 0)),
    ]
    place = f"segmentation_{comparison.place}"
    title = f"Segmentation, {comparison.backbone}, head {comparison.head}"
    return build(place, title, columns, list(comparison.runs), "Test images.")


def table3(comparison: Comparison) -> Table | None:
    """The paper's rows, ours beside; None without a run of its task and backbone."""
    here = comparison.metric, comparison.backbone, comparison.head
    ours = {run.method: run for run in comparison.runs if run.task == TASK}
    if here != (segmentation.METRIC, BACKBONE, HEAD) or not ours:
        return None
    several = _of(f"test_{segmentation.METRIC}_several")

    def cell(show):
        return lambda row: show(ours[row.method]) if row.method in ours else "-"

    columns = [
        Column[Published]("method", lambda row: row.method, left=True),
        Column[Published]("figures of", lambda row: row.who, left=True),
        Column[Published]("mIoU", lambda row: number(row.single, 2)),
        Column[Published]("several scales", lambda row: number(row.several, 2)),
        Column[Published]("tuned [M]", lambda row: number(row.millions, 2)),
        Column[Published]("our mIoU", cell(lambda run: number(run.score, 2))),
        Column[Published]("our several scales", cell(several)),
        Column[Published](
            "our tuned [M]", cell(lambda run: _millions(run.result["trainable_params"]))
        ),
    ]
    title = "ADE20K, SETR-PUP on ViT-L/16: the paper's Table 3"
    return build("paper_table3", title, columns, published(), "mIoU [%].")


def classes(comparison: Comparison) -> list[Table]:
    """The IoU of each class, task by task."""
    if comparison.metric != segmentation.METRIC:
        return []
    found = []
    for task in comparison.tasks:
        runs = [run for run in comparison.runs if run.task == task]
        names = runs[0].result["classes"]
        Row = Column[int]
        columns = [Row("class", lambda n, names=names: names[n], left=True)]
        columns += [Row(run.method, _of_class(run)) for run in runs]
        title = f"IoU of each class, {task}, {comparison.backbone}, {comparison.head}"
        name = f"iou_{comparison.place}_{re.sub('[^a-z0-9]+', '_', task.lower())}"
        rows = range(len(names))
        found.append(build(name, title, columns, rows, "Test images, percent."))
    return found


def _of(key: str, digits: int = 2):
    """A cell: a number of result.json, if it is there."""
    return lambda run: number(run.result.get(key), digits)


def _of_class(run: Run):
    return lambda n: number(run.result["test_iou"][n], 1)


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f}"
