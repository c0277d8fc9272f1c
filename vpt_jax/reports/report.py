"""`--mode report`: every run below a folder in tables and figures, beside the paper's.

report/report.md, report.html    all of it; the page needs no other file
report/tables/*.csv, *.tex       each table
report/figures/*.png             each figure
report/files.json                what of this the last report wrote

With a page asked for, such as docs/results.md, that and docs/results/figures/*.png too.
"""

from vpt_jax.errors import UserError
from vpt_jax.reports import (
    charts,
    figures,
    order,
    outputs,
    pages,
    provenance,
    segmentation,
    significance,
    sweep_tables,
    tables,
)
from vpt_jax.reports.collect import Run, collect, comparisons
from vpt_jax.reports.style import Figure
from vpt_jax.reports.table import Table
from vpt_jax.storage.files import write_bytes
from vpt_jax.storage.paths import Folder


def write(root: Folder, features: int = 0, page: Folder | None = None) -> list[Folder]:
    """Tables and figures of all runs below `root`, into `root/report`.

    Args:
        root: A folder of runs and sweeps.
        features: Test images of each run of which t-SNE and the attention of prompts
            are drawn; 0 leaves those out, for which every backbone must be run.
        page: A `.md` file to write as well, its figures in a folder of its name;
            without those of single sweeps.

    Returns:
        The pages.

    Raises:
        UserError: No finished run there, or what would be replaced is no report.
    """
    folder = root / "report"
    outputs.owned(folder)  # before the work
    if page is not None:
        _replaceable(page)
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
    files["report.md"] = pages.markdown(parts, notes, "figures").encode()
    files["report.html"] = pages.page(parts, notes).encode()
    outputs.replace(folder, files)
    written = [folder / "report.md", folder / "report.html"]
    if page is not None:
        _write_page(page, parts, notes)
        written.append(page)
    return written


def _replaceable(page: Folder) -> None:
    """Raise UserError where a page would take the place of what no report wrote."""
    if page.suffix != ".md":
        raise UserError(f"--output {page} must end in .md")
    figures = page.with_suffix("")
    outputs.owned(figures)
    if page.exists() and not outputs.is_report(figures):
        raise UserError(f"--output {page} is a file that no report wrote; name another")


def _write_page(
    page: Folder, parts: list[Table | Figure], notes: dict[str, list[str]]
) -> None:
    """The page and what it shows; what goes into detail is left to the report."""
    shown = [p for p in parts if isinstance(p, Table) or not p.detail]
    drawn = {f"figures/{p.name}.png": p.png for p in shown if isinstance(p, Figure)}
    figures = page.with_suffix("")
    outputs.replace(figures, drawn)
    text = pages.markdown(shown, notes, f"{figures.name}/figures")
    write_bytes(page, text.encode())


def contents(runs: list[Run]) -> list[Table | Figure]:
    """Every table and figure that these runs have something to say in."""
    parts: list[Table | Figure | None] = []
    for comparison in comparisons(runs):
        parts += [
            tables.summary(comparison),
            tables.scores(comparison),
            *charts.of_comparison(comparison),
            order.beside_the_papers(comparison),
            tables.tasks(comparison),
            tables.costs(comparison),
            segmentation.table(comparison),
            segmentation.table3(comparison),
            *segmentation.classes(comparison),
            significance.task_tests(comparison),
            significance.seed_tests(comparison),
        ]
    for metric, alike in _by_metric([run for run in runs if run.variant]).items():
        parts += [*charts.of_ablations(alike), sweep_tables.ablations(metric, alike)]
    together = [run for run in runs if run.ensemble is not None]
    for metric, alike in _by_metric(together).items():
        parts.append(sweep_tables.ensembles(metric, alike))
    if len(runs) > 1:
        parts.append(provenance.table(runs))
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
