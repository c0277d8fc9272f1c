"""Figures of a single run, and of many beside the paper's."""

import dataclasses
import json
import math
import pathlib

import matplotlib

matplotlib.use("Agg")

import numpy as np  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402  (after the backend is chosen)
from matplotlib.colors import LogNorm  # noqa: E402
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter  # noqa: E402

from vpt_jax.reports import paper  # noqa: E402
from vpt_jax.reports.collect import Run  # noqa: E402
from vpt_jax.runs.files import read_lines  # noqa: E402

GROUPS = ("natural", "specialized", "structured")
PAPER = "#555555"


@dataclasses.dataclass(frozen=True)
class Figure:
    """A file and its title."""

    title: str
    path: pathlib.Path


def draw_all(runs: list[Run], folder: pathlib.Path) -> list[Figure]:
    """Every figure for which there are runs."""
    drawn = []

    def add(name: str, title: str, draw, *args) -> None:
        path = folder / f"{name}.png"
        draw(*args, title, path)
        drawn.append(Figure(title, path))

    plain = [run for run in runs if not run.variant]
    for backbone in dict.fromkeys(run.backbone for run in plain):
        own = [run for run in plain if run.backbone == backbone]
        title = f"Accuracy against tuned parameters, {backbone}"
        add(f"parameters_{backbone}", title, accuracy_against_parameters, own)
        add(f"tasks_{backbone}", f"Tasks, {backbone}", task_bars, own)
    variants = [run for run in runs if run.variant]
    variants += group_means(variants)
    for key in dict.fromkeys((r.task, _ablation(r)) for r in variants):
        own = [r for r in variants if (r.task, _ablation(r)) == key]
        own.sort(key=lambda r: r.result["sweep"]["variant_position"])
        task, name = key
        title = f"{name or 'Variants'}, {task}"
        add(f"ablation_{file_name(name)}_{file_name(task)}", title, ablation, own)
    for run in runs:
        if run.swept:
            name = "_".join(
                map(file_name, (run.backbone, run.method, run.variant, run.task))
            )
            who = f"{run.method} {run.variant}".strip() + f" on {run.task}"
            records = sweep_records(run.path)
            lines = sweep_lines(run.path)
            add(f"grid_{name}", f"Grid of {who}", grid_map, records, run.result)
            add(f"trials_{name}", f"All trials of {who}", all_trials, lines, records)
    return drawn


# ---- one run


def learning_curve(lines: list[dict], title: str, path: pathlib.Path) -> None:
    """Training loss, and training and validation top-1, over epochs, one line a trial.

    Args:
        lines: Of metrics.jsonl.
        title: What was trained.
        path: The `.png` to write.
    """
    figure, (loss_axis, top1_axis) = subplots(1, 2, figsize=(9, 3.4))
    trials = sorted({line["trial"] for line in lines})
    for trial in trials:
        own = [line for line in lines if line["trial"] == trial]
        epochs = [line["epoch"] for line in own]
        label = f"seed {own[0]['seed']}" if len(trials) > 1 else "train"
        colour = f"C{trial % 10}"
        loss = [math.nan if x["train_loss"] is None else x["train_loss"] for x in own]
        loss_axis.plot(epochs, loss, color=colour)
        top1 = [x["train_top1"] for x in own]
        top1_axis.plot(epochs, top1, color=colour, label=label)
        scored = [x for x in own if x["val_top1"] is not None]
        if scored:
            top1_axis.plot(
                [x["epoch"] for x in scored],
                [x["val_top1"] for x in scored],
                "o--",
                color=colour if len(trials) > 1 else "C1",
                label=None if len(trials) > 1 else "validation",
            )
    loss_axis.set_ylabel("training loss")
    top1_axis.set_ylabel("top-1 [%]")
    if trials:
        top1_axis.legend(frameon=False)
    for axis in (loss_axis, top1_axis):
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_ylim(bottom=0)
        _plain(axis)
    save(figure, title, path)


# ---- one sweep


def sweep_records(workdir: pathlib.Path) -> list[dict]:
    """The records of every trial of a sweep."""
    lines = []
    for path in sorted(workdir.glob("units/*/*/trials.jsonl")):
        lines += map(json.loads, path.read_text().splitlines())
    return lines


def sweep_lines(workdir: pathlib.Path) -> list[list[dict]]:
    """The lines of metrics.jsonl of every trial of a sweep, trial by trial."""
    trials = []
    for path in sorted(workdir.glob("units/*/*/metrics.jsonl")):
        own: dict[int, list] = {}
        for line in read_lines(path):
            own.setdefault(line["trial"], []).append(line)
        trials += own.values()
    return trials


def grid_map(records: list[dict], result: dict, title: str, path: pathlib.Path) -> None:
    """Validation top-1 over learning rate and weight decay, of the winner's unit."""
    label = result["sweep"]["label"]
    longest = max(r["epochs"] for r in records if r["label"] == label)
    of_unit = [r for r in records if r["label"] == label and r["epochs"] == longest]
    rates = sorted({r["base_lr"] for r in of_unit})
    decays = sorted({r["weight_decay"] for r in of_unit})
    values = np.full((len(decays), len(rates)), np.nan)
    for y, decay in enumerate(decays):
        for x, rate in enumerate(rates):
            scores = [
                r["val_top1"]
                for r in of_unit
                if (r["base_lr"], r["weight_decay"]) == (rate, decay)
            ]
            if scores and None not in scores:
                values[y, x] = np.mean(scores)
    figure, axis = subplots(
        figsize=(max(5.5, 1.5 + 0.75 * len(rates)), 1.7 + 0.55 * len(decays))
    )
    image = axis.imshow(values, aspect="auto", origin="lower", cmap="viridis")
    middle = np.nanmean([np.nanmin(values), np.nanmax(values)])
    for (y, x), value in np.ndenumerate(values):
        failed = math.isnan(value)
        text = "failed" if failed else f"{value:.1f}"
        colour = "0.4" if failed else "white" if value < middle else "black"
        axis.text(x, y, text, ha="center", va="center", color=colour, fontsize=8)
    won = result["sweep"]
    at = rates.index(won["base_lr"]), decays.index(won["weight_decay"])
    corner = (at[0] - 0.5, at[1] - 0.5)
    axis.add_patch(plt.Rectangle(corner, 1, 1, fill=False, edgecolor="red", lw=2.5))
    axis.set_xticks(range(len(rates)), [f"{x:g}" for x in rates])
    axis.set_yticks(range(len(decays)), [f"{x:g}" for x in decays])
    axis.set_xlabel("base learning rate, per 256 images")
    axis.set_ylabel("weight decay")
    figure.colorbar(image, label="validation top-1 [%]")
    save(figure, title + (f" ({label})" if label else "") + ", winner framed", path)


def all_trials(
    trials: list[list[dict]], records: list[dict], title: str, path: pathlib.Path
) -> None:
    """Training and validation top-1 over epochs, one line a trial, coloured by lr."""
    del records
    rates = [trial[0]["lr"] for trial in trials]
    known = [rate for rate in rates if rate > 0] or [1.0]
    low, high = min(known), max(known)
    scale = plt.cm.ScalarMappable(LogNorm(low, max(high, low * 1.01)), "plasma")
    figure, axes = subplots(1, 2, figsize=(10, 3.8))
    for trial, rate in zip(trials, rates, strict=True):
        colour = scale.to_rgba(max(rate, low))
        for axis, name in zip(axes, ("train_top1", "val_top1"), strict=True):
            points = [(x["epoch"], x[name]) for x in trial if x[name] is not None]
            # A trial that failed ends where its loss was last finite.
            if name == "train_top1":
                points = [
                    (x["epoch"], x[name]) for x in trial if x["train_loss"] is not None
                ]
            if points:
                axis.plot(*zip(*points, strict=True), color=colour, lw=1, alpha=0.8)
    for axis, name in zip(axes, ("training", "validation"), strict=True):
        axis.set_ylabel(f"{name} top-1 [%]")
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_ylim(bottom=0)
        _plain(axis)
    figure.colorbar(scale, ax=axes, label="learning rate")
    save(figure, title, path)


# ---- many runs


def accuracy_against_parameters(
    runs: list[Run], title: str, path: pathlib.Path
) -> None:
    """The paper's first figure: mean top-1 over tuned parameters, a panel per group.

    The paper's accuracies are drawn hollow at our number of parameters.
    """
    groups = list(dict.fromkeys(run.group for run in runs))
    figure, axes = subplots(
        1, len(groups), figsize=(1 + 3.9 * len(groups), 3.9), squeeze=False
    )
    for axis, group in zip(axes[0], groups, strict=True):
        inside = [run for run in runs if run.group == group]
        size = len({run.task for run in inside})
        for k, method in enumerate(dict.fromkeys(run.method for run in runs)):
            own = [run for run in inside if run.method == method]
            if len(own) < size:  # a mean over fewer tasks is another figure
                continue
            percent = float(np.mean([run.result["tuned_percent"] for run in own]))
            top1 = float(np.mean([run.top1 for run in own]))
            colour = f"C{k % 10}"
            axis.plot(percent, top1, "o", color=colour, ms=9, label=method)
            known = [paper.top1(r.backbone, method, r.task) for r in own]
            if None not in known:
                axis.plot(percent, np.mean(known), "o", ms=9, mfc="none", color=colour)
        axis.set_xscale("log")
        axis.set_xlim(*_wider([r.result["tuned_percent"] for r in inside]))
        axis.xaxis.set_major_locator(LogLocator(10))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.margins(y=0.2)
        axis.set_xlabel("tuned parameters [% of the model]")
        axis.set_ylabel("mean test top-1 [%]")
        axis.set_title(f"{group} ({size} task{'s' * (size > 1)})", fontsize=10)
        _plain(axis)
    handles, labels = {}, []
    for axis in axes[0]:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    handles["hollow: the paper's"] = plt.Line2D(
        [], [], marker="o", ls="", mfc="none", color=PAPER
    )
    labels = list(handles)
    figure.legend(
        [handles[x] for x in labels],
        labels,
        loc="outside lower center",
        ncols=min(5, len(labels)),
        frameon=False,
    )
    save(figure, title, path)


def task_bars(runs: list[Run], title: str, path: pathlib.Path) -> None:
    """Top-1 of each task, a bar per method, the paper's figure as a line on it."""
    groups = list(dict.fromkeys(run.group for run in runs))
    names = list(dict.fromkeys(run.method for run in runs))
    most = max(len({r.task for r in runs if r.group == g}) for g in groups)
    wide = max(5.0, min(15.0, 1.5 + most * (0.5 + 0.17 * len(names))))
    figure, axes = subplots(
        len(groups), 1, figsize=(wide, 0.9 + 2.9 * len(groups)), squeeze=False
    )
    for axis, group in zip(axes[:, 0], groups, strict=True):
        _bars(axis, [run for run in runs if run.group == group], names)
        axis.set_title(group, fontsize=10, loc="left")
        axis.set_xlim(-0.6, most - 0.4)
    handles = [
        plt.Rectangle((0, 0), 1, 1, color=f"C{k % 10}") for k in range(len(names))
    ]
    if any(paper.top1(r.backbone, r.method, r.task) is not None for r in runs):
        handles.append(plt.Line2D([], [], color="k", lw=2))
        names.append("the paper's")
    columns = min(len(names), max(3, int(wide / 1.3)))
    figure.legend(
        handles, names, loc="outside lower center", ncols=columns, frameon=False
    )
    save(figure, title, path)


def _bars(axis, runs: list[Run], names: list[str]) -> None:
    tasks = list(dict.fromkeys(run.task for run in runs))
    width = 0.8 / len(names)
    for k, method in enumerate(names):
        own = {run.task: run for run in runs if run.method == method}
        shift = (k - (len(names) - 1) / 2) * width
        for place, task in enumerate(tasks):
            if task not in own:
                continue
            x, run = place + shift, own[task]
            deviation = run.result["test_top1_std"]
            axis.bar(x, run.top1, width * 0.92, color=f"C{k % 10}")
            if deviation is not None:
                axis.errorbar(x, run.top1, deviation, color="0.2", capsize=2, lw=1)
            known = paper.top1(run.backbone, method, task)
            if known is not None:
                axis.plot([x - width / 2, x + width / 2], [known] * 2, "k", lw=2)
    labels = [task.replace("_", "\n") for task in tasks]
    axis.set_xticks(range(len(tasks)), labels, fontsize=9)
    axis.set_ylabel("test top-1 [%]")
    axis.set_ylim(0, 105)
    _plain(axis)


def ablation(runs: list[Run], title: str, path: pathlib.Path) -> None:
    """Top-1 of each variant: curves where labels are 'name = number', else bars."""
    numbers = [_number(run.variant) for run in runs]
    errors = [run.result["test_top1_std"] or 0 for run in runs]
    curve = None not in numbers and len(set(numbers)) > 1
    figure, axis = subplots(
        figsize=(5.8 if curve else max(5, 1.5 + 0.95 * len(runs)), 4.1)
    )
    if curve:
        names = [run.variant.rpartition("=")[0].strip() for run in runs]
        for k, name in enumerate(dict.fromkeys(names)):
            points = sorted(
                (x, run.top1, error)
                for x, run, error, own in zip(numbers, runs, errors, names, strict=True)
                if own == name
            )
            x, y, error = zip(*points, strict=True)
            axis.errorbar(
                x, y, error, fmt="o-", capsize=3, color=f"C{k}", label=name or None
            )
        if min(numbers) > 0 and max(numbers) / min(numbers) > 20:
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter(NullFormatter())
        ticks = sorted(set(numbers))
        axis.set_xticks(ticks, [f"{value:g}" for value in ticks])
        axis.set_xlabel(_ablation(runs[0]) or "variant")
        if any(names):
            axis.legend(frameon=False)
    else:
        heights = [run.top1 for run in runs]
        axis.bar(range(len(runs)), heights, 0.65, yerr=errors, ecolor="0.2", capsize=3)
        for k, height in enumerate(heights):
            above = height + errors[k] + 0.012 * max(heights)
            axis.text(k, above, f"{height:.1f}", ha="center", fontsize=9)
        axis.set_xticks(range(len(runs)), [run.variant for run in runs])
        if max(len(run.variant) for run in runs) > 7:
            plt.setp(
                axis.get_xticklabels(), rotation=30, ha="right", rotation_mode="anchor"
            )
        axis.set_ylim(0, 1.15 * max(heights))
    axis.set_ylabel("test top-1 [%]")
    _plain(axis)
    save(figure, title, path)


def group_means(runs: list[Run]) -> list[Run]:
    """For every variant of an ablation its mean over the tasks of a group.

    Only where all variants have the same two tasks or more.
    """
    means = []
    for key in dict.fromkeys((run.group, _ablation(run)) for run in runs):
        own = [run for run in runs if (run.group, _ablation(run)) == key]
        by_variant: dict[str, list[Run]] = {}
        for run in own:
            by_variant.setdefault(run.variant, []).append(run)
        tasks = {frozenset(r.task for r in alike) for alike in by_variant.values()}
        if len(tasks) > 1 or len(next(iter(tasks))) < 2:
            continue
        for alike in by_variant.values():
            result = alike[0].result | {
                "task": f"{key[0]}, mean of {len(alike)}",
                "test_top1": float(np.mean([run.top1 for run in alike])),
                "test_top1_std": None,
            }
            means.append(dataclasses.replace(alike[0], result=result))
    return means


def _ablation(run: Run) -> str:
    return run.result["sweep"].get("ablation", "")


def _number(label: str) -> float | None:
    """5 of 'P = 5' or '5'."""
    try:
        return float(label.rpartition("=")[2].strip().removesuffix("%"))
    except ValueError:
        return None


def _wider(values: list[float]) -> tuple[float, float]:
    """Limits of a logarithmic axis of at least a decade around the values."""
    low, high = math.log10(min(values)), math.log10(max(values))
    room = max(0.35, (1.4 - (high - low)) / 2)
    return 10 ** (low - room), 10 ** (high + room)


def file_name(text: str) -> str:
    """Letters, digits, dots and dashes."""
    return "".join(c if c.isalnum() or c in "-." else "-" for c in text) or "all"


def _plain(axis) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_axisbelow(True)
    axis.grid(alpha=0.3)


def subplots(*args, **kwargs):
    """A figure that makes room for its labels."""
    return plt.subplots(*args, layout="constrained", **kwargs)


def save(figure, title: str, path: pathlib.Path) -> None:
    """Write and close."""
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
