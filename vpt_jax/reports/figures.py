"""Figures of a single run and of a sweep."""

import json
import math

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.patches import Rectangle

from vpt_jax.reports import result, style
from vpt_jax.reports.collect import Run
from vpt_jax.reports.style import Canvas, Figure
from vpt_jax.storage.files import read_lines, write_bytes
from vpt_jax.storage.paths import Folder

_ON_WHITE = ListedColormap(colormaps["viridis"](np.linspace(0, 0.9, 256)))

# ---- a run


def learning_curve(lines: list[dict], title: str, path: Folder) -> None:
    """Training loss, and the scores of training and validation, over epochs.

    Args:
        lines: Of metrics.jsonl.
        title: What was trained.
        path: The `.png` to write.
    """
    write_bytes(path, style.png(curves(lines), title))


def curves(lines: list[dict]) -> Canvas:
    """The two panels of a learning curve, one line a trial."""
    figure = style.canvas(9, 3.4)
    loss_axis, score_axis = figure.subplots(1, 2)
    metric = _metric(lines)
    trials = sorted({line["trial"] for line in lines})
    for k, trial in enumerate(trials):
        own = [line for line in lines if line["trial"] == trial]
        alone = len(trials) == 1
        loss = [math.nan if x["train_loss"] is None else x["train_loss"] for x in own]
        loss_axis.plot([x["epoch"] for x in own], loss, color=style.colour(k))
        label = "training" if alone else f"seed {own[0]['seed']}"
        _line(score_axis, own, f"train_{metric}", style.colour(k), label, "-")
        shade = style.colour(1 if alone else k)
        last = k == len(trials) - 1
        label = "validation" if alone else "dashed: validation" if last else ""
        _line(score_axis, own, f"val_{metric}", shade, label, "o--")
    loss_axis.set_ylabel("training loss")
    if trials:
        score_axis.legend(frameon=False)
    for axis in (loss_axis, score_axis):
        axis.set_ylim(bottom=0)
        style.epoch_axis(axis)
        style.plain(axis)
    validated = any(line[f"val_{metric}"] is not None for line in lines)
    style.score_axis(score_axis, metric, "training" + ", validation" * validated)
    return figure


def _metric(lines: list[dict]) -> str:
    """That which the lines give of training and validation images, besides the loss."""
    names = [key.removeprefix("train_") for line in lines[:1] for key in line]
    scored = [x for x in names if x != "loss" and f"val_{x}" in lines[0]]
    return scored[0] if scored else "score"


def _line(axis: Axes, lines: list[dict], key: str, colour, label: str, form: str):
    """One curve of those epochs that have a value, if any."""
    known = [line for line in lines if line[key] is not None]
    if known:
        x, y = [line["epoch"] for line in known], [line[key] for line in known]
        # Not cut in half where it lies on the edge, at 0 or 100 %.
        axis.plot(x, y, form, color=colour, label=label, ms=4, clip_on=False)


# ---- a sweep


def of_sweep(run: Run) -> list[Figure]:
    """The grid and all trials, where there are two or more."""
    records, trials = sweep_records(run.path), sweep_lines(run.path)
    name = name_of(run)
    figures = []
    if len({(r["base_lr"], r["weight_decay"]) for r in winning_unit(records, run)}) > 1:
        label = run.result["sweep"]["label"]
        title = f"Grid of {run.who}" + (f" ({label})" if label else "")
        title += ", winner framed"
        drawn = grid_map(records, run)
        figures.append(style.finish(f"grid_{name}", title, drawn, detail=True))
    if len(trials) > 1:
        title = f"All trials of {run.who}"
        drawn = all_trials(trials, run.metric)
        figures.append(style.finish(f"trials_{name}", title, drawn, detail=True))
    return figures


def name_of(run: Run) -> str:
    """Part of the file names of what is drawn of this run alone."""
    variant = f"{run.ablation} {run.variant}".strip()
    name = style.file_name(run.backbone, run.method, variant, run.task)
    return result.place(name, run.metric)


def sweep_records(workdir: Folder) -> list[dict]:
    """The records of every trial of a sweep."""
    lines = []
    for path in sorted(workdir.glob("units/*/*/trials.jsonl")):
        lines += map(json.loads, path.read_text().splitlines())
    return lines


def sweep_lines(workdir: Folder) -> list[list[dict]]:
    """The lines of metrics.jsonl of every trial of a sweep, trial by trial."""
    trials = []
    for path in sorted(workdir.glob("units/*/*/metrics.jsonl")):
        own: dict[int, list] = {}
        for line in read_lines(path):
            own.setdefault(line["trial"], []).append(line)
        trials += own.values()
    return trials


def winning_unit(records: list[dict], run: Run) -> list[dict]:
    """Those records of the winner's unit that were trained for all epochs."""
    unit = [r for r in records if r["label"] == run.result["sweep"]["label"]]
    longest = max((r["epochs"] for r in unit), default=0)
    return [r for r in unit if r["epochs"] == longest]


def grid_map(records: list[dict], run: Run) -> Canvas:
    """Validation scores over learning rate and weight decay, of the winner's unit."""
    unit = winning_unit(records, run)
    rates = sorted({r["base_lr"] for r in unit})
    decays = sorted({r["weight_decay"] for r in unit})
    values = np.full((len(decays), len(rates)), np.nan)
    for y, decay in enumerate(decays):
        for x, rate in enumerate(rates):
            point = [
                r[f"val_{run.metric}"]
                for r in unit
                if (r["base_lr"], r["weight_decay"]) == (rate, decay)
            ]
            if point and None not in point:
                values[y, x] = np.mean(point)
    figure = style.canvas(max(5.5, 1.5 + 0.75 * len(rates)), 1.7 + 0.55 * len(decays))
    axis = figure.subplots()
    image = axis.imshow(values, aspect="auto", origin="lower", cmap="cividis")
    _write_cells(axis, image, values, result.digits(run.metric) - 1)
    won = run.result["sweep"]
    corner = (
        rates.index(won["base_lr"]) - 0.5,
        decays.index(won["weight_decay"]) - 0.5,
    )
    for edge, width in (("white", 5), ("black", 2.5)):  # seen on light and dark
        frame = Rectangle(corner, 1, 1, fill=False, ec=edge, lw=width, clip_on=False)
        axis.add_patch(frame)
    axis.set_xticks(range(len(rates)), [f"{x:g}" for x in rates])
    axis.set_yticks(range(len(decays)), [f"{x:g}" for x in decays])
    axis.set_xlabel("base learning rate, per 256 images")
    axis.set_ylabel("weight decay")
    figure.colorbar(image, label=f"validation {result.label(run.metric)}")
    return figure


def _write_cells(axis: Axes, image, values: np.ndarray, digits: int) -> None:
    """Each value in its cell, dark on light or light on dark."""
    for (y, x), value in np.ndenumerate(values):
        failed = math.isnan(value)
        text = "failed" if failed else f"{value:.{digits}f}"
        light = failed or np.dot(image.to_rgba(value)[:3], (0.3, 0.6, 0.1)) > 0.45
        colour = style.INK if light else "white"
        axis.text(x, y, text, ha="center", va="center", color=colour, fontsize=8)


def all_trials(trials: list[list[dict]], metric: str) -> Canvas:
    """Training and validation scores over epochs, one line a trial, coloured by lr."""
    rates = [trial[0]["lr"] for trial in trials]
    known = [rate for rate in rates if rate > 0] or [1.0]
    low, high = min(known), max(known)
    scale = ScalarMappable(LogNorm(low, max(high, low * 1.01)), _ON_WHITE)
    figure = style.canvas(10, 3.8)
    axes = figure.subplots(1, 2)
    parts = ("training", f"train_{metric}"), ("validation", f"val_{metric}")
    for axis, (name, key) in zip(axes, parts, strict=True):
        for trial, rate in zip(trials, rates, strict=True):
            # A trial that failed ends where its loss was last finite.
            alive = [line for line in trial if line["train_loss"] is not None]
            lines = alive if name == "training" else trial
            _line(axis, lines, key, scale.to_rgba(max(rate, low)), "", "-")
        if not axis.lines:
            axis.set_axis_off()
            continue
        if all(len(line.get_xdata()) == 1 for line in axis.lines):
            for line in axis.lines:
                line.set_marker("o")  # a line of one point is not seen
        axis.set_ylim(bottom=0)
        style.epoch_axis(axis)
        style.score_axis(axis, metric, name)
        style.plain(axis)
    figure.colorbar(scale, ax=axes, label="learning rate", format=lambda x, _: f"{x:g}")
    return figure
