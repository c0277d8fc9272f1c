"""Figures of a single run."""

import math
import pathlib

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402  (after the backend is chosen)
from matplotlib.ticker import MaxNLocator  # noqa: E402


def learning_curve(lines: list[dict], title: str, path: pathlib.Path) -> None:
    """Training loss, and training and validation top-1, over epochs, one line a trial.

    Args:
        lines: Of metrics.jsonl.
        title: What was trained.
        path: The `.png` to write.
    """
    figure, (loss_axis, top1_axis) = plt.subplots(1, 2, figsize=(9, 3.4))
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
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
