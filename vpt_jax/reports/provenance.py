"""How and where the numbers of a report were made."""

from collections import Counter

from vpt_jax.reports.collect import Run
from vpt_jax.reports.table import Column, Table, build, number
from vpt_jax.storage.files import read_json
from vpt_jax.training.head_start import RANDOM

_PROTOCOL = (
    "Of a sweep every point of the grid is trained on the training images and scored "
    "on the validation images after its last epoch (of halving, each round is listed); "
    "the best of those with all epochs is trained again with every seed, and these "
    "runs are scored on the test images, once."
)


def table(runs: list[Run]) -> Table:
    """A row for each run or sweep."""
    Row = Column[Run]
    columns = [
        Row("method", lambda run: run.method, left=True),
        Row("backbone", lambda run: run.backbone, left=True),
        Row("task", lambda run: run.task, left=True),
        Row("variant", lambda run: run.variant, left=True),
        Row("image [px]", lambda run: str(run.result["image_size"])),
        Row("trained on", lambda run: f"{run.result['n_train']:,}"),
        Row("batch", lambda run: str(run.result["batch_size"])),
        Row(
            "head",
            lambda run: "" if run.head_start == RANDOM else run.head_start,
            "Head: fitted to the features before the first step; else random.",
            left=True,
        ),
        Row("grid", _grid, "Grid: trials x epochs.", left=True),
        Row("runs", lambda run: f"{len(run.seeds)} x {run.result['epochs']}"),
        Row("where", where, left=True),
        Row(
            "time [min]",
            lambda run: number(seconds(run) / 60, 1),
            "Time: training of all trials and runs, without compiling and without the "
            "test images.",
        ),
    ]
    note = f"{_in_all(runs)} Runs: seeds x epochs."
    if any(run.swept for run in runs):
        note = f"{_PROTOCOL} {note}"
    return build("runs", "How each number was made", columns, runs, note)


def _in_all(runs: list[Run]) -> str:
    """'In all 12 runs and, to choose their settings, 40 trials, in 90.5 min.'"""
    trials = sum(run.result["sweep"]["grid_trials"] for run in runs if run.swept)
    minutes = sum(map(seconds, runs)) / 60
    count = sum(len(run.seeds) for run in runs)
    chosen = f" and, to choose their settings, {trials:,} trials" if trials else ""
    return f"In all {count:,} runs{chosen}, in {number(minutes, 1)} min."


def seconds(run: Run) -> float:
    """Of training, the grid included."""
    grid = run.result["sweep"]["grid_seconds"] if run.swept else 0.0
    return grid + run.result["train_seconds"]


def where(run: Run) -> str:
    """'1 x NVIDIA H200', or of a CPU its model and cores; '-' where nothing tells."""
    found = read_json(run.path / "environment.json") or {}
    devices = Counter(found.get("devices", []))
    if set(devices) == {"cpu"} and "cpu" in found:
        return f"{found['cpu']['model']}, {found['cpu']['cores']} cores"
    return ", ".join(f"{count} x {kind}" for kind, count in devices.items()) or "-"


def _grid(run: Run) -> str:
    """'6 x 10, 2 x 30': of all units together."""
    rounds: Counter[int] = Counter()
    for path in sorted(run.path.glob("units/*/plan.json")):
        for epochs, trials in (read_json(path) or {})["rounds"]:
            rounds[epochs] += trials
    if not rounds and run.swept:
        return str(run.result["sweep"]["grid_trials"])
    return ", ".join(
        f"{trials} x {epochs}" for epochs, trials in sorted(rounds.items())
    )
