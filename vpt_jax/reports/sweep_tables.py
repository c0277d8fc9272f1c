"""Tables of sweeps, of ablations and of ensembles of seeds."""

import numpy as np

from vpt_jax.reports import result
from vpt_jax.reports.collect import Run
from vpt_jax.reports.figures import sweep_records
from vpt_jax.reports.table import Column, Table, build, number
from vpt_jax.reports.tables import FAILED, mark, score


def chosen(runs: list[Run]) -> Table:
    """What each sweep tried and chose."""
    Row = Column[Run]
    columns = [
        Row("method", lambda run: run.method, left=True),
        Row("backbone", lambda run: run.backbone, left=True),
        Row("task", lambda run: run.task, left=True),
        Row("variant", _variant, left=True),
        Row(
            "base lr",
            lambda run: f"{run.result['sweep']['base_lr']:g}",
            "Base lr per 256 images.",
        ),
        Row(
            "edge",
            _edge,
            "Edge: the winner has the lowest or highest learning rate of all tried.",
            left=True,
        ),
        Row("weight decay", lambda run: f"{run.result['sweep']['weight_decay']:g}"),
        Row(
            "tied",
            lambda run: str(run.result["sweep"]["ties"]),
            "Tied: points of the same validation score.",
        ),
        Row("trials", lambda run: str(run.result["sweep"]["grid_trials"])),
        Row("failed", lambda run: str(run.result["sweep"]["failed"] or "-")),
        Row("grid [s]", lambda run: number(run.result["sweep"]["grid_seconds"], 1)),
        Row("saved", _saved, "Saved: image passes that halving left out."),
    ]
    return build("chosen", "What the sweeps chose", columns, runs)


def _variant(run: Run) -> str:
    return " ".join(filter(None, (run.variant, run.result["sweep"]["label"])))


def _edge(run: Run) -> str:
    rates = {record["base_lr"] for record in sweep_records(run.path)}
    ends = {min(rates): "lowest", max(rates): "highest"} if len(rates) > 1 else {}
    return ends.get(run.result["sweep"]["base_lr"], "")


def _saved(run: Run) -> str:
    sweep = run.result["sweep"]
    saved = 1 - sweep["image_passes"] / sweep["full_image_passes"]
    return f"{100 * saved:.0f} %" if saved else "-"


def ablations(metric: str, runs: list[Run]) -> Table:
    """Variant by variant."""
    Row = Column[Run]
    columns = [
        Row("ablation", lambda run: run.ablation, left=True),
        Row("variant", lambda run: run.variant, left=True),
        Row("backbone", lambda run: run.backbone, left=True),
        Row("task", lambda run: run.task, left=True),
        Row("method", lambda run: run.method, left=True),
        Row(
            f"test {result.label(metric)}",
            lambda run: score(run.score, metric) + mark([run]),
        ),
        Row("std", lambda run: score(run.std, metric)),
        Row("seeds", lambda run: run.count),
        Row("tuned [%]", lambda run: number(run.result["tuned_percent"], 3)),
        Row("training images", lambda run: f"{run.result['n_train']:,}"),
    ]
    note = "Each with its own winner, chosen on its own validation scores."
    place = result.place("ablations", metric)
    return build(place, "Variants", columns, runs, note, FAILED)


def ensembles(metric: str, runs: list[Run]) -> Table:
    """Seeds apart and together."""
    Row = Column[Run]
    best = max if runs[0].sign > 0 else min
    columns = [
        Row("method", lambda run: f"{run.method} {run.variant}".strip(), left=True),
        Row("backbone", lambda run: run.backbone, left=True),
        Row("task", lambda run: run.task, left=True),
        Row("seeds", lambda run: run.count),
        Row("best", lambda run: score(best(run.finished), metric)),
        Row("ensemble", lambda run: score(run.ensemble, metric) + mark([run])),
        Row(
            "gain",
            lambda run: score(_gain(run), metric, signed=True),
            "Gain: over the mean of the seeds.",
        ),
    ]
    note = "Predictions averaged over the seeds that finished; test "
    note += f"{result.label(metric)}."
    title = "Ensembles of the seeds on one backbone"
    place = result.place("ensembles", metric)
    return build(place, title, columns, runs, note, FAILED)


def _gain(run: Run) -> float | None:
    return None if run.ensemble is None else run.ensemble - float(np.mean(run.finished))
