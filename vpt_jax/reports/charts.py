"""Figures of many runs beside the paper's.

A chart is drawn where it has two things to compare, and is as large as they need.
"""

import dataclasses
import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter

from vpt_jax.reports import paper, result, style
from vpt_jax.reports.collect import Comparison, Run
from vpt_jax.reports.style import Figure

_BAR = 0.14  # inches that a bar takes
_HALO = [withStroke(linewidth=2.8, foreground="white")]  # dark lines on dark bars
_NUMBERED = 24  # with fewer bars each has its number


def of_comparison(comparison: Comparison) -> list[Figure]:
    """Accuracy over parameters, and a bar for each run."""
    title = f"{result.title(comparison.metric)} of {comparison.backbone}"
    drawn = {
        "parameters": (accuracy_against_parameters, "against tuned parameters"),
        "tasks": (task_bars, "on each task"),
    }
    figures = []
    for name, (draw, what) in drawn.items():
        figure = draw(comparison)
        if figure is not None:
            file = f"{name}_{comparison.place}"
            figures.append(style.finish(file, f"{title} {what}", figure))
    return figures


# ---- accuracy against parameters


def accuracy_against_parameters(comparison: Comparison) -> Canvas | None:
    """The paper's first figure: mean score over tuned parameters, a panel per group.

    The paper's scores are drawn hollow at our number of parameters. None where no
    group has two methods on all of its tasks.
    """
    panels = comparison.panels
    if not panels:
        return None
    figure = style.canvas(1.4 + 2.8 * len(panels), 4.1)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    names = list(comparison.methods)
    legend: dict[str, Line2D] = {}
    for axis, (title, of_methods) in zip(axes, panels.items(), strict=True):
        for method, runs in of_methods.items():
            k = names.index(method)
            legend |= _points(axis, runs, k)
        shares = [_share(runs) for runs in of_methods.values()]
        axis.set_title(title, fontsize=10)
        _share_axis(axis, shares)
        axis.margins(y=0.15)
        style.score_axis(axis, comparison.metric, "test")
        style.plain(axis)
    ordered = [name for name in (*names, _PAPER, _SEEDS) if name in legend]
    _legend(figure, [legend[name] for name in ordered], ordered)
    return figure


_PAPER = "hollow: the paper's"
_SEEDS = "± deviation over seeds"


def _points(axis: Axes, runs: list[Run], k: int) -> dict[str, Line2D]:
    """A method's point, with its deviation where it is of one task, and the paper's.

    Returns what a legend must name.
    """
    form = {
        "marker": style.MARKERS[k // len(style.COLOURS) % len(style.MARKERS)],
        "ls": "",
        "clip_on": False,
    }
    colour, share = style.colour(k), _share(runs)
    scores = [run.score for run in runs]
    [point] = axis.plot(share, np.mean(scores), ms=8, color=colour, **form)
    named = {runs[0].method: point}
    if len(runs) == 1 and runs[0].std is not None:
        axis.errorbar(share, scores, runs[0].std, fmt="none", ecolor=colour)
        named[_SEEDS] = Line2D([], [], color=style.INK, ls="", marker="|", ms=12)
    known = [paper.score(r.backbone, r.method, r.task, r.metric) for r in runs]
    published = [score for score in known if score is not None]
    if len(published) < len(known):
        return named
    ring = {"ms": 12, "mfc": "none", "mew": 1.3}  # seen around an equal score
    axis.plot(share, np.mean(published), mec=colour, **ring, **form)
    named[_PAPER] = Line2D([], [], mec=style.INK, **ring, **form)
    return named


def _share(runs: list[Run]) -> float:
    """Tuned parameters, percent of the model, mean over tasks."""
    return float(np.mean([run.result["tuned_percent"] for run in runs]))


def _share_axis(axis: Axes, shares: list[float]) -> None:
    """A logarithmic axis of more than a decade around the values."""
    low, high = math.log10(min(shares)), math.log10(max(shares))
    room = max(0.35, (1.4 - (high - low)) / 2)
    axis.set_xscale("log")
    axis.set_xlim(10 ** (low - room), min(10 ** (high + room), 200))
    axis.xaxis.set_major_locator(LogLocator(10))
    axis.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("tuned parameters [% of the model]")


# ---- bars


def task_bars(comparison: Comparison) -> Canvas | None:
    """Score of each task, a bar per method, the paper's figure as a line on it.

    None where there is a single run.
    """
    if len(comparison.runs) < 2:
        return None
    names = list(comparison.methods)
    groups: dict[str, list[Run]] = {}
    for run in comparison.runs:
        groups.setdefault(run.group, []).append(run)
    most = max(len({run.task for run in runs}) for runs in groups.values())
    width = max(5.2, 1.2 + most * max(0.75, _BAR * (len(names) + 1.5)))
    figure = style.canvas(width, 1.1 + 2.4 * len(groups))
    axes = figure.subplots(len(groups), 1, squeeze=False)[:, 0]
    for axis, (group, runs) in zip(axes, groups.items(), strict=True):
        _bars(axis, runs, names, len(comparison.runs) < _NUMBERED)
        axis.set_xlim(-0.6, most - 0.4)
        axis.spines["bottom"].set_bounds(-0.6, len({run.task for run in runs}) - 0.4)
        if len(groups) > 1:
            axis.set_title(group, fontsize=10, loc="left")
    _bar_legend(figure, comparison)
    return figure


def _bars(axis: Axes, runs: list[Run], names: list[str], numbered: bool) -> None:
    """One panel: a place for each task, around it a bar for each method."""
    tasks = list(dict.fromkeys(run.task for run in runs))
    width = min(0.28, 0.84 / len(names))
    for run in runs:
        k = names.index(run.method)
        x = tasks.index(run.task) + (k - (len(names) - 1) / 2) * width
        _bar(axis, run, x, width, k)
        if numbered:
            _number(axis, run, x, k)
        known = paper.score(run.backbone, run.method, run.task, run.metric)
        if known is not None:
            ends = [x - width / 2, x + width / 2]
            look = {"color": style.INK, "lw": 2, "solid_capstyle": "butt"}
            axis.plot(ends, [known] * 2, path_effects=_HALO, **look)
    labels = [task.replace("_", "\n") for task in tasks]
    axis.set_xticks(range(len(tasks)), labels)
    style.score_axis(axis, runs[0].metric, "test")
    if result.is_percent(runs[0].metric):
        axis.set_ylim(0, 100)
    style.plain(axis)
    axis.grid(False, axis="x")
    axis.tick_params(axis="x", length=0)


def _bar(axis: Axes, run: Run, x: float, width: float, k: int) -> None:
    """Hatched where seeds failed, and where the colours are used a second time."""
    look = {"color": style.colour(k), "edgecolor": "white", "linewidth": 0}
    hatch = "///" if run.failed else "" if k < len(style.COLOURS) else ".."
    axis.bar(x, run.score, width * 0.92, hatch=hatch, **look)
    if run.std is not None:
        look = {"color": style.INK, "capsize": 2, "lw": 1, "path_effects": _HALO}
        axis.errorbar(x, run.score, run.std, **look)


def _number(axis: Axes, run: Run, x: float, k: int) -> None:
    """Upright at the foot of the bar."""
    red, green, blue = (int(style.colour(k)[i : i + 2], 16) for i in (1, 3, 5))
    dark = 0.3 * red + 0.6 * green + 0.1 * blue < 140
    axis.annotate(
        f"{run.score:.{result.digits(run.metric) - 1}f}",
        (x, 0),
        (0, 4),
        textcoords="offset points",
        rotation=90,
        fontsize=8,
        ha="center",
        va="bottom",
        color="white" if dark else style.INK,
        bbox={"fc": style.colour(k), "ec": "none", "pad": 1},
    )


def _bar_legend(figure: Canvas, comparison: Comparison) -> None:
    """The methods, and what else is drawn."""
    runs = comparison.runs
    shown: dict[str, Patch | Line2D] = {
        name: Patch(color=style.colour(k)) for k, name in enumerate(comparison.methods)
    }
    if any(paper.score(r.backbone, r.method, r.task, r.metric) for r in runs):
        shown["the paper's"] = Line2D([], [], color=style.INK, lw=2)
    if any(run.std is not None for run in runs):
        shown[_SEEDS] = Line2D([], [], color=style.INK, marker="|")
    if any(run.failed for run in runs):
        shown["some seeds failed"] = Patch(fc="0.6", ec="white", hatch="///", lw=0)
    _legend(figure, list(shown.values()), list(shown))


def _legend(figure: Canvas, handles: list, names: list[str]) -> None:
    """Below, in as many columns as the width has room for."""
    longest = max(map(len, names))
    columns = int(figure.get_figwidth() / (0.5 + 0.07 * longest))
    look = {"frameon": False, "fontsize": 9, "ncols": max(1, min(columns, len(names)))}
    figure.legend(handles, names, loc="outside lower center", **look)


# ---- ablations


def of_ablations(runs: list[Run]) -> list[Figure]:
    """A figure for every ablation and task, and for its mean over a group of tasks."""
    figures = []
    variants = [run for run in runs if run.variant]
    by_place: dict[tuple[str, str, str], list[Run]] = {}
    for run in variants + group_means(variants):
        by_place.setdefault((run.task, run.ablation, run.metric), []).append(run)
    for (task, name, metric), alike in by_place.items():
        if len(alike) > 1:
            alike.sort(key=lambda run: run.result["sweep"]["variant_position"])
            title = f"{name or 'Variants'}, {task}"
            place = result.place(f"ablation_{style.file_name(name, task)}", metric)
            figures.append(style.finish(place, title, ablation(alike)))
    return figures


def ablation(runs: list[Run]) -> Canvas:
    """Score of each variant: curves where labels are 'name = number', else bars."""
    numbers = [_value(run.variant) for run in runs]
    known = [number for number in numbers if number is not None]
    if len(known) == len(runs) and len(set(known)) > 1:
        figure = style.canvas(5.8, 4.1)
        axis = figure.subplots()
        _variant_curves(axis, runs, known)
        axis.margins(y=0.15)
    else:
        figure = style.canvas(max(4.2, 1.5 + 0.95 * len(runs)), 4.1)
        axis = figure.subplots()
        _variant_bars(axis, runs)
    style.score_axis(axis, runs[0].metric, "test")
    style.plain(axis)
    return figure


def _variant_curves(axis: Axes, runs: list[Run], numbers: list[float]) -> None:
    names = [run.variant.rpartition("=")[0].strip() for run in runs]
    for k, name in enumerate(dict.fromkeys(names)):
        points = sorted(
            (x, run.score, run.std or 0)
            for x, run, own in zip(numbers, runs, names, strict=True)
            if own == name
        )
        x, y, error = zip(*points, strict=True)
        colour = style.colour(k)
        axis.errorbar(x, y, error, fmt="o-", capsize=3, color=colour, label=name)
    if min(numbers) > 0 and max(numbers) / min(numbers) > 20:
        axis.set_xscale("log")
        axis.minorticks_off()
    ticks = sorted(set(numbers))
    axis.set_xticks(ticks, [f"{value:g}" for value in ticks])
    axis.set_xlabel(runs[0].ablation or "variant")
    if any(names):
        axis.legend(frameon=False)


def _variant_bars(axis: Axes, runs: list[Run]) -> None:
    heights = [run.score for run in runs]
    errors = [run.std or 0.0 for run in runs]
    digits = result.digits(runs[0].metric) - 1
    look = {"color": style.COLOURS[2], "ecolor": style.INK, "capsize": 3}
    axis.bar(
        range(len(runs)), heights, 0.65, yerr=errors if any(errors) else None, **look
    )
    for k, height in enumerate(heights):
        axis.annotate(
            f"{height:.{digits}f}",
            (k, height + errors[k]),
            (0, 3),
            textcoords="offset points",
            fontsize=9,
            ha="center",
        )
    slanted = max(len(run.variant) for run in runs) > 7
    turn = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    names = [run.variant for run in runs]
    axis.set_xticks(range(len(runs)), names, **(turn if slanted else {}))
    axis.set_ylim(0, 1.15 * max(heights))


def group_means(runs: list[Run]) -> list[Run]:
    """For every variant of an ablation its mean over the tasks of a group.

    Only where all variants have the same two tasks or more.
    """
    means = []
    keys = dict.fromkeys((run.group, run.ablation, run.metric) for run in runs)
    for key in keys:
        own = [run for run in runs if (run.group, run.ablation, run.metric) == key]
        by_variant: dict[str, list[Run]] = {}
        for run in own:
            by_variant.setdefault(run.variant, []).append(run)
        tasks = {frozenset(r.task for r in alike) for alike in by_variant.values()}
        if len(tasks) > 1 or len(next(iter(tasks))) < 2:
            continue
        for alike in by_variant.values():
            changed = alike[0].result | {
                "task": f"{key[0]}, mean of {len(alike)}",
                f"test_{key[2]}": float(np.mean([run.score for run in alike])),
                f"test_{key[2]}_std": None,
            }
            means.append(dataclasses.replace(alike[0], result=changed))
    return means


def _value(label: str) -> float | None:
    """5 of 'P = 5' or '5'."""
    try:
        return float(label.rpartition("=")[2].strip().removesuffix("%"))
    except ValueError:
        return None
