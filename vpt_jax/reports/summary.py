"""The short table at the end of a run."""

from vpt_jax import methods
from vpt_jax.progress import table
from vpt_jax.reports.result import Result, digits, name, with_unit
from vpt_jax.storage.paths import located


def show(result: dict) -> None:
    """Print what a user wants to know of a finished run, and where to find the rest."""
    run = Result(result)
    rows = [
        ("status", result["status"]),
        *scores(run),
        ("tuned parameters", f"{result['trainable_params']:,}"),
        ("of the whole model", f"{result['tuned_percent']:.2f} %"),
        ("tuned artefact", f"{result['tuned_bytes']:,} bytes"),
        ("training", f"{result['train_seconds']:.1f} s"),
        ("compilation", f"{result['compile_seconds']:.1f} s"),
    ]
    if result.get("test_auc") is not None:
        rows.insert(2, ("test AUC", f"{result['test_auc']:.2f} %"))
    if run.validation is not None:
        text = with_unit(run.metric, run.validation)
        rows.insert(2, (f"validation {name(run.metric)}", text))
    table(rows, f"{result['method']} on {run.task}, {run.backbone}")
    workdir = located(result["workdir"])
    files = ["result.json", "export", "figures/learning_curve.png"]
    if result.get("beside"):
        show_beside(result)
        files.append("figures/attention.png")
    for file in files:
        if (workdir / file).exists():
            print(workdir / file)


def show_beside(result: dict) -> None:
    """Print a row for the run and for each that was tuned beside it."""
    run = Result(result)
    every = [*result["beside"].values(), result]
    rows = [
        (
            methods.label(one["method"], one["method_options"], run.backbone),
            _score(Result(one)),
            f"{one['tuned_percent']:.2f} %",
            f"{one['tuned_bytes']:,}",
            f"{one['train_seconds'] + one['compile_seconds']:.1f}",
        )
        for one in every
    ]
    columns = ("method", f"test {name(run.metric)}", "tuned", "bytes", "seconds")
    table(rows, f"{run.task}, {run.backbone}", columns)


def show_sweep(result: dict) -> None:
    """Print the winner of a sweep and its scores."""
    run, chosen = Result(result), result["sweep"]
    tied = f", {chosen['ties']} points tied" if chosen["ties"] > 1 else ""
    failed = f", {chosen['failed']} failed" if chosen["failed"] else ""
    label = f"{chosen['label']}, " if chosen["label"] else ""
    rows = [
        ("status", result["status"]),
        *scores(run),
        (
            f"validation {name(run.metric)}",
            with_unit(run.metric, run.validation) + tied,
        ),
        (
            "winner",
            f"{label}base lr {chosen['base_lr']:g} (lr {chosen['lr']:g}), weight decay "
            f"{chosen['weight_decay']:g}",
        ),
        ("trials", f"{chosen['grid_trials']}{failed}"),
        ("training of the grid", f"{chosen['grid_seconds']:.1f} s"),
        ("tuned parameters", f"{result['trainable_params']:,}"),
    ]
    table(rows, f"{result['method']} on {run.task}, {run.backbone}")
    print(located(result["workdir"]) / "result.json")


def scores(run: Result) -> list[tuple[str, str]]:
    """The test score, with that of every seed, and which seeds failed."""
    text = _score(run)
    if len(run.seeds) > 1:
        each = ", ".join(
            "failed" if score is None else f"{score:.{digits(run.metric)}f}"
            for score in run.scores
        )
        text += f" ({each})"
    rows = [(f"test {name(run.metric)}", text)]
    if run.failed:
        who = ", ".join(map(str, run.failed))
        rows.append(("seeds", f"{run.count} finished; failed: {who}"))
    return rows


def _score(run: Result) -> str:
    """'90.00 % +- 0.50'."""
    text = with_unit(run.metric, run.score)
    return text if run.std is None else f"{text} +- {run.std:.{digits(run.metric)}f}"
