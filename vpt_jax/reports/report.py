"""`--mode report`: every run below a folder in tables and figures, beside the paper's.

report/report.md, report.html    all of it; the page needs no other file
report/tables/*.csv, *.tex       each table
report/figures/*.png             each figure
"""

import base64
import html
import pathlib
import shutil

import numpy as np

from vpt_jax import data
from vpt_jax.reports import figures, paper
from vpt_jax.reports.collect import Run, collect
from vpt_jax.reports.statistics import compare
from vpt_jax.reports.tables import Table, number
from vpt_jax.runs.files import write_text

GROUPS = ("natural", "specialized", "structured", "fgvc")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 68rem;
  padding: 0 1rem; color: #1a1a1a; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
p { color: #555; margin: .2rem 0 .6rem; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: left; white-space: nowrap; }
th { border-bottom: 2px solid #999; } tr + tr td { border-top: 1px solid #e4e4e4; }
.n { text-align: right; } img { max-width: 100%; } code { background: #f3f3f3; }
"""


def write(root: pathlib.Path, features: int = 0) -> list[pathlib.Path]:
    """Tables and figures of all runs below `root`, into `root/report`.

    Args:
        root: A folder of runs and sweeps.
        features: Test images of each run of which t-SNE and the attention of prompts
            are drawn; 0 leaves those out, for which every backbone must be run.

    Returns:
        The two pages.

    Raises:
        UserError: No finished run there.
    """
    runs, left_out = collect(root)
    folder = root / "report"
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("tables", "figures"):
        (folder / name).mkdir(parents=True)
    tables = all_tables(runs)
    for table in tables:
        write_text(folder / "tables" / f"{table.name}.csv", table.csv())
        write_text(folder / "tables" / f"{table.name}.tex", table.latex())
    drawn = figures.draw_all(runs, folder / "figures")
    if features:
        from vpt_jax.reports import seen  # runs the backbones: only where asked for

        drawn += seen.draw_all(runs, folder / "figures", features)
    pages = folder / "report.md", folder / "report.html"
    write_text(pages[0], _markdown(tables, drawn, left_out, folder))
    write_text(pages[1], _html(tables, drawn, left_out))
    return list(pages)


def all_tables(runs: list[Run]) -> list[Table]:
    """Every table for which there are runs, backbone by backbone."""
    result = []
    for backbone in dict.fromkeys(run.backbone for run in runs):
        own = [run for run in runs if run.backbone == backbone and not run.variant]
        if own:
            makers = (summary, means, tasks, costs)
            result += [make(backbone, own) for make in makers]
            if len({run.method for run in own}) > 1:
                result.append(tests(backbone, own))
    if any(run.swept for run in runs):
        result.append(chosen([run for run in runs if run.swept]))
    if any(run.variant for run in runs):
        result.append(ablations([run for run in runs if run.variant]))
    if any(run.result.get("test_top1_ensemble") is not None for run in runs):
        result.append(ensembles(runs))
    return result


def summary(backbone: str, runs: list[Run]) -> Table:
    """A row per method, as the paper's tables 1 to 5."""
    groups = [
        g for g in (*GROUPS, "embedded", "own") if any(r.group == g for r in runs)
    ]
    rows = []
    for method in _methods(runs):
        own = [run for run in runs if run.method == method]
        cells = []
        for group in groups:
            of_group = [run for run in own if run.group == group]
            if not of_group:
                cells.append("-")
                continue
            known = [(r.top1, paper.top1(backbone, method, r.task)) for r in of_group]
            both = [(a, b) for a, b in known if b is not None]
            published = _published_mean(backbone, method, group, of_group, both)
            text = number(float(np.mean([run.top1 for run in of_group])))
            few = len(of_group) < _size((group,))
            cells.append(
                text
                + (f" / {published:.2f}" if published is not None else "")
                + (f" [{len(of_group)}]" if few else "")
            )
        rows.append((method, f"{_total(method, own):.3f}x", *cells))
    return Table(
        f"summary_{backbone}",
        f"Methods, {backbone}",
        "Mean test top-1 [%], ours / the paper's; in square brackets the number of "
        "tasks where a group is not complete. Total: see the costs below.",
        ("method", "total", *groups),
        tuple(rows),
    )


def means(backbone: str, runs: list[Run]) -> Table:
    """Group means beside the paper's, over the tasks that there are runs of."""
    rows = []
    for method in _methods(runs):
        for group in (*GROUPS, "VTAB", "embedded", "own"):
            inside = GROUPS[:3] if group == "VTAB" else (group,)
            of_group = [r for r in runs if r.method == method and r.group in inside]
            if not of_group or (
                group == "VTAB" and len({r.group for r in of_group}) < 2
            ):
                continue
            ours = [r.top1 for r in of_group]
            known = [(r.top1, paper.top1(backbone, method, r.task)) for r in of_group]
            both = [(a, b) for a, b in known if b is not None]
            published = _published_mean(backbone, method, group, of_group, both)
            gap = np.mean([a for a, _ in both]) - published if both else None
            rows.append(
                (
                    method,
                    group,
                    f"{len(ours)} of {_size(inside) or len(ours)}",
                    number(float(np.mean(ours))),
                    number(published),
                    number(gap, signed=True) if len(both) == len(ours) else "-",
                    *_wins(backbone, runs, method, of_group),
                )
            )
    note = (
        "Top-1 [%]. The paper's mean is over the same tasks (its printed mean where "
        "all are there). Wins: tasks better than Full, the paper's in brackets."
    )
    header = ("method", "group", "tasks", "ours", "paper", "difference", "wins")
    return Table(
        f"means_{backbone}",
        f"Group means, {backbone}",
        note,
        header,
        tuple(rows),
        left=(0, 1, 2),
    )


def tasks(backbone: str, runs: list[Run]) -> Table:
    """Every task beside the paper's figure."""
    rows = []
    for run in runs:
        published = paper.top1(backbone, run.method, run.task)
        std = run.result["test_top1_std"]
        seeds = run.result["seed"]
        rows.append(
            (
                run.method,
                run.task,
                number(run.top1) + (f" ± {std:.2f}" if std is not None else ""),
                str(len(seeds) if isinstance(seeds, list) else 1),
                number(published, 1),
                number(
                    None if published is None else run.top1 - published, signed=True
                ),
                number(run.result["val_top1"]),
                f"{run.result['n_test']:,}",
                paper.source(backbone, run.method, run.task),
            )
        )
    header = ("method", "task", "ours", "seeds", "paper", "difference", "val")
    return Table(
        f"tasks_{backbone}",
        f"Tasks, {backbone}",
        "Test top-1 [%] after the last epoch, mean and population deviation over "
        "seeds; val: the winner's, on the validation images.",
        (*header, "test images", "where the paper's figure was read"),
        tuple(rows),
        left=(0, 1, 8),
    )


def costs(backbone: str, runs: list[Run]) -> Table:
    """Parameters, bytes and seconds."""
    rows = []
    for method in _methods(runs):
        own = [run.result for run in runs if run.method == method]
        mean = lambda key, own=own: float(np.mean([r[key] for r in own]))  # noqa: E731
        rows.append(
            (
                method,
                str(len(own)),
                number(mean("trainable_params"), 0),
                number(mean("tuned_percent"), 3),
                f"{_total(method, [r for r in runs if r.method == method]):.3f}x",
                number(paper.ratios(backbone).get(method), 2),
                number(mean("tuned_bytes"), 0),
                number(mean("train_seconds"), 1),
                number(max(r["peak_memory_bytes"] for r in own) / 1e9, 2),
            )
        )
    note = (
        "Means over tasks. Total: 1 + tuned parameters of all these tasks / backbone; "
        "the paper's is over its 24 tasks. Seconds: of the final runs, all seeds "
        "together."
    )
    header = ("method", "tasks", "tuned parameters", "tuned [%]", "total", "paper, 24")
    return Table(
        f"costs_{backbone}",
        f"Costs, {backbone}",
        note,
        (*header, "bytes per task", "train [s]", "peak memory [GB]"),
        tuple(rows),
    )


def tests(backbone: str, runs: list[Run]) -> Table:
    """Every pair of methods over their common tasks."""
    by_method = {
        m: {r.task: r.top1 for r in runs if r.method == m} for m in _methods(runs)
    }
    names = list(by_method)
    rows = []
    for k, b in enumerate(names):
        for a in names[k + 1 :]:
            found = compare(by_method[a], by_method[b])
            if found is None:
                continue
            p = [
                "-" if x is None else f"{x:.2g}" for x in (found.t_test, found.wilcoxon)
            ]
            rows.append(
                (
                    f"{a} - {b}",
                    str(found.tasks),
                    number(found.difference, signed=True),
                    f"{found.wins} of {found.tasks}",
                    *p,
                )
            )
    return Table(
        f"tests_{backbone}",
        f"Paired tests over tasks, {backbone}",
        "Two-sided p values of a paired t-test and Wilcoxon's signed-rank test.",
        ("methods", "tasks", "mean difference", "wins", "t-test p", "Wilcoxon p"),
        tuple(rows),
    )


def chosen(runs: list[Run]) -> Table:
    """What each sweep tried and chose."""
    rows = []
    for run in runs:
        sweep = run.result["sweep"]
        saved = 1 - sweep["image_passes"] / sweep["full_image_passes"]
        rows.append(
            (
                run.method,
                run.task,
                " ".join(filter(None, (run.variant, sweep["label"]))) or "-",
                f"{sweep['base_lr']:g}",
                f"{sweep['weight_decay']:g}",
                number(sweep["val_top1"], 1),
                str(sweep["ties"]),
                str(sweep["grid_trials"]),
                str(sweep["failed"]),
                number(sweep["grid_seconds"], 1),
                f"{100 * saved:.0f} %" if saved else "-",
            )
        )
    header = ("method", "task", "variant", "base lr", "weight decay", "val", "tied")
    return Table(
        "chosen",
        "What the sweeps chose",
        "Base lr per 256 images; tied: points of the same validation top-1; saved: "
        "image passes that halving left out.",
        (*header, "trials", "failed", "grid [s]", "saved"),
        tuple(rows),
        left=(0, 1, 2),
    )


def ablations(runs: list[Run]) -> Table:
    """Variant by variant."""
    rows = tuple(
        (
            run.variant,
            run.backbone,
            run.task,
            run.method,
            number(run.top1),
            number(run.result["test_top1_std"]),
            number(run.result["tuned_percent"], 3),
            f"{run.result['n_train']:,}",
        )
        for run in runs
    )
    header = ("variant", "backbone", "task", "method", "test top-1", "std")
    return Table(
        "ablations",
        "Variants",
        "Each with its own winner, chosen on its own validation scores.",
        (*header, "tuned [%]", "training images"),
        rows,
        left=(0, 1, 2, 3),
    )


def ensembles(runs: list[Run]) -> Table:
    """Seeds apart and together."""
    rows = []
    for run in runs:
        together = run.result.get("test_top1_ensemble")
        if together is None:
            continue
        each = [x for x in run.result["test_top1_per_seed"] if x is not None]
        gain = together - np.mean(each)
        rows.append(
            (
                " ".join(filter(None, (run.method, run.variant))),
                run.backbone,
                run.task,
                str(len(each)),
                number(float(np.mean(each))),
                number(max(each)),
                number(together),
                number(float(gain), signed=True),
            )
        )
    header = ("method", "backbone", "task", "seeds", "mean", "best", "ensemble", "gain")
    return Table(
        "ensembles",
        "Ensembles of the seeds on one backbone",
        "Class probabilities averaged over seeds; test top-1 [%].",
        header,
        tuple(rows),
        left=(0, 1, 2),
    )


def _methods(runs: list[Run]) -> list[str]:
    return list(dict.fromkeys(run.method for run in runs))


def _total(method: str, runs: list[Run]) -> float:
    """Parameters of all these tasks together, in backbones."""
    size = runs[0].result["backbone_params"]
    tuned = sum(run.result["trainable_params"] for run in runs) / size
    return tuned if method == "full" else 1 + tuned  # full shares no backbone


def _size(groups: tuple[str, ...]) -> int:
    return sum(len(data.GROUPS[group]) for group in groups if group in data.GROUPS)


def _published_mean(backbone, method, group, runs, both) -> float | None:
    if len(runs) == _size((group,)) and group in GROUPS:
        printed = paper.top1(backbone, method, group)
        if printed is not None:
            return printed
    return float(np.mean([b for _, b in both])) if both else None


def _wins(backbone, runs, method, of_group) -> tuple[str]:
    """'3 (4)': our wins against Full, and the paper's on the same tasks."""
    if method == "full":
        return ("-",)
    full = {run.task: run.top1 for run in runs if run.method == "full"}
    ours = [run.top1 > full[run.task] for run in of_group if run.task in full]
    theirs = [
        (paper.top1(backbone, method, r.task), paper.top1(backbone, "full", r.task))
        for r in of_group
    ]
    known = [a > b for a, b in theirs if a is not None and b is not None]
    text = str(sum(ours)) if ours else "-"
    return (text + (f" ({sum(known)})" if known else ""),)


def _markdown(tables, drawn, left_out, folder: pathlib.Path) -> str:
    parts = ["# Results\n", *(table.markdown() for table in tables)]
    for figure in drawn:
        place = figure.path.relative_to(folder)
        parts.append(f"## {figure.title}\n\n![{figure.title}]({place})\n")
    parts += ["## Left out\n", *(f"- {line}" for line in left_out)] if left_out else []
    return "\n".join(parts) + "\n"


def _html(tables, drawn, left_out) -> str:
    parts = [table.html() for table in tables]
    for figure in drawn:
        content = base64.b64encode(figure.path.read_bytes()).decode()
        title = html.escape(figure.title)
        parts.append(
            f'<section><h2>{title}</h2>\n<img alt="{title}" '
            f'src="data:image/png;base64,{content}"></section>\n'
        )
    if left_out:
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in left_out)
        parts.append(f"<section><h2>Left out</h2><ul>{lines}</ul></section>\n")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>Results</title><style>{_STYLE}</style></head>\n<body><h1>Results</h1>\n"
        + "".join(parts)
        + "</body></html>\n"
    )
