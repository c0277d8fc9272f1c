"""The short table at the end of a run."""

import pathlib

from vpt_jax.progress import table


def show(result: dict) -> None:
    """Print what a user wants to know of a finished run, and where to find the rest."""
    top1 = result["test_top1"]
    std = result["test_top1_std"]
    top1 = "-" if top1 is None else f"{top1:.2f} %"
    seeds = result["test_top1_per_seed"]
    each = ", ".join("failed" if x is None else f"{x:.2f}" for x in seeds)
    rows = [
        ("status", result["status"]),
        ("test top-1", top1 + (f" +- {std:.2f} ({each})" if std is not None else "")),
        ("tuned parameters", f"{result['trainable_params']:,}"),
        ("of the whole model", f"{result['tuned_percent']:.2f} %"),
        ("tuned artefact", f"{result['tuned_bytes']:,} bytes"),
        ("training", f"{result['train_seconds']:.1f} s"),
        ("compilation", f"{result['compile_seconds']:.1f} s"),
    ]
    if result["val_top1"] is not None:
        rows.insert(2, ("validation top-1", f"{result['val_top1']:.2f} %"))
    if result["test_auc"] is not None:
        rows.insert(2, ("test AUC", f"{result['test_auc']:.2f} %"))
    title = f"{result['method']} on {result['task']}, {result['backbone']}"
    table(rows, title)
    workdir = pathlib.Path(result["workdir"])
    for name in ("result.json", "export", "figures/learning_curve.png"):
        print(workdir / name)


def show_sweep(result: dict) -> None:
    """Print the winner of a sweep and its scores."""
    chosen, top1 = result["sweep"], result["test_top1"]
    test = "-" if top1 is None else f"{top1:.2f} %"
    if result["test_top1_std"] is not None:
        each = (
            "failed" if x is None else f"{x:.2f}" for x in result["test_top1_per_seed"]
        )
        test += f" +- {result['test_top1_std']:.2f} ({', '.join(each)})"
    tied = f", {chosen['ties']} points tied" if chosen["ties"] > 1 else ""
    failed = f", {chosen['failed']} failed" if chosen["failed"] else ""
    label = f"{chosen['label']}, " if chosen["label"] else ""
    rows = [
        ("status", result["status"]),
        ("test top-1", test),
        ("validation top-1", f"{chosen['val_top1']:.2f} %{tied}"),
        (
            "winner",
            f"{label}base lr {chosen['base_lr']:g} (lr {chosen['lr']:g}), weight decay "
            f"{chosen['weight_decay']:g}",
        ),
        ("trials", f"{chosen['grid_trials']}{failed}"),
        ("training of the grid", f"{chosen['grid_seconds']:.1f} s"),
        ("tuned parameters", f"{result['trainable_params']:,}"),
    ]
    table(rows, f"{result['method']} on {result['task']}, {result['backbone']}")
    print(pathlib.Path(result["workdir"]) / "result.json")
