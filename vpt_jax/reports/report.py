"""`--mode report`: every run below a folder in tables and figures, beside the paper's.

report/report.md, report.html    all of it; the page needs no other file
report/tables/*.csv, *.tex       each table
report/figures/*.png             each figure
report/files.json                what of this the last report wrote
"""

import pathlib

from vpt_jax.reports import (
    charts,
    figures,
    outputs,
    pages,
    significance,
    sweep_tables,
    tables,
)
from vpt_jax.reports.collect import Run, collect, comparisons
from vpt_jax.reports.style import Figure
from vpt_jax.reports.table import Table


def write(root: pathlib.Path, features: int = 0) -> list[pathlib.Path]:
    """Tables and figures of all runs below `root`, into `root/report`.

    Args:
        root: A folder of runs and sweeps.
        features: Test images of each run of which t-SNE and the attention of prompts
            are drawn; 0 leaves those out, for which every backbone must be run.

    Returns:
        The two pages.

    Raises:
        UserError: No finished run there, or `root/report` is no report.
    """
    folder = root / "report"
    outputs.owned(folder)  # before the work
    runs, left_out = collect(root)
    parts = contents(runs)
    if features:
        from vpt_jax.reports import seen  # runs the backbones: only where asked for

        parts += seen.draw_all(runs, features)
    notes = {"Failed seeds": failures(runs), "Left out": left_out}
    files = {}
    for part in parts:
        if isinstance(part, Table):
            files[f"tables/{part.name}.csv"] = part.csv().encode()
            files[f"tables/{part.name}.tex"] = part.latex().encode()
        else:
            files[f"figures/{part.name}.png"] = part.png
    files["report.md"] = pages.markdown(parts, notes).encode()
    files["report.html"] = pages.page(parts, notes).encode()
    outputs.replace(folder, files)
    return [folder / "report.md", folder / "report.html"]


def contents(runs: list[Run]) -> list[Table | Figure]:
    """Every table and figure that these runs have something to say in."""
    parts: list[Table | Figure | None] = []
    for comparison in comparisons(runs):
        parts += [
            tables.summary(comparison),
            *charts.of_comparison(comparison),
            tables.tasks(comparison),
            tables.costs(comparison),
            significance.task_tests(comparison),
            significance.seed_tests(comparison),
        ]
    for metric, alike in _by_metric([run for run in runs if run.variant]).items():
        parts += [*charts.of_ablations(alike), sweep_tables.ablations(metric, alike)]
    together = [run for run in runs if run.ensemble is not None]
    for metric, alike in _by_metric(together).items():
        parts.append(sweep_tables.ensembles(metric, alike))
    swept = [run for run in runs if run.swept]
    if swept:
        parts.append(sweep_tables.chosen(swept))
    for run in swept:
        parts += figures.of_sweep(run)
    return [part for part in parts if part is not None]


def failures(runs: list[Run]) -> list[str]:
    """A line for each run that some of its seeds are missing from."""
    return [
        f"{run.who}, {run.backbone}: {run.count} seeds finished, without "
        f"{', '.join(map(str, run.failed))} ({run.result['status']})"
        for run in runs
        if run.failed
    ]


def _by_metric(runs: list[Run]) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.metric, []).append(run)
    return found
