"""metrics.jsonl and TensorBoard, one line and one point for each epoch and trial."""

import json
import pathlib
from collections.abc import Sequence

from tensorboardX import SummaryWriter

from vpt_jax import parallel
from vpt_jax.runs.files import read_lines, write_text
from vpt_jax.training.loop import Epoch


class MetricsLog:
    """The curves of some trials, cut back to the epochs that are kept.

    A line has 'epoch', 'trial', what sets the trial apart, 'train_loss', 'val_loss',
    and the objective's primary score under 'train_METRIC' and 'val_METRIC'.
    """

    def __init__(self, folder: pathlib.Path, trials: Sequence[dict], metric: str):
        self._path = folder / "metrics.jsonl"
        self._board = folder / "tensorboard"
        self._trials, self._metric = trials, metric
        self._writer: SummaryWriter | None = None  # of process 0

    def start(self, epochs_done: int) -> None:
        """Drop what a killed run wrote after its last checkpoint."""
        kept = [line for line in self.lines() if line["epoch"] <= epochs_done]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        parallel.first(lambda: write_text(self._path, text))
        purge = epochs_done + 1 if epochs_done else None
        if parallel.is_first():
            self._writer = SummaryWriter(str(self._board), purge_step=purge)

    def add(self, epoch: Epoch) -> None:
        """What is known of a trial after an epoch."""
        if self._writer is None or epoch.trial >= len(self._trials):
            return
        values = {
            "train_loss": epoch.train_loss,
            f"train_{self._metric}": epoch.train_score,
            f"val_{self._metric}": epoch.val_score,
            "val_loss": epoch.val_loss,
        }
        own = {"epoch": epoch.epoch, "trial": epoch.trial, **self._trials[epoch.trial]}
        with open(self._path, "a") as file:
            file.write(json.dumps(own | values) + "\n")
        for name, value in values.items():
            if value is not None:
                tag = f"trial_{epoch.trial}/{name}"
                self._writer.add_scalar(tag, value, epoch.epoch)

    def lines(self) -> list[dict]:
        """All whole lines, as process 0 finds them."""
        path = self._path
        return parallel.from_first(lambda: read_lines(path) if path.exists() else [])

    def close(self) -> None:
        """Flush TensorBoard's events; the lines are there for every process."""
        parallel.first(self._flush)

    def _flush(self) -> None:
        if self._writer is not None:
            self._writer.close()
