"""metrics.jsonl and TensorBoard, one line and one point for each epoch and trial."""

import json
from collections.abc import Sequence

from tensorboardX import SummaryWriter

from vpt_jax import parallel
from vpt_jax.storage.files import Lines, Mirror, read_lines
from vpt_jax.storage.paths import Folder
from vpt_jax.training.loop import Epoch

LINES = "metrics.jsonl"


class MetricsLog:
    """The curves of some trials, cut back to the epochs that are kept.

    A line has 'epoch', 'trial', what sets the trial apart, 'train_loss', 'val_loss',
    and the objective's primary score under 'train_METRIC' and 'val_METRIC'.
    """

    def __init__(self, folder: Folder, trials: Sequence[dict], metric: str):
        self._folder = folder
        self._trials, self._metric = trials, metric
        self._files: _Files | None = None  # of process 0

    def start(self, epochs_done: int) -> None:
        """Drop what a killed run wrote after its last checkpoint."""
        kept = [line for line in self.lines() if line["epoch"] <= epochs_done]

        def begin() -> None:
            self._files = _Files(self._folder, kept, epochs_done)

        parallel.first(begin)

    def add(self, epoch: Epoch) -> None:
        """What is known of a trial after an epoch."""
        if self._files is None or epoch.trial >= len(self._trials):
            return
        values = {
            "train_loss": epoch.train_loss,
            f"train_{self._metric}": epoch.train_score,
            f"val_{self._metric}": epoch.val_score,
            "val_loss": epoch.val_loss,
        }
        own = {"epoch": epoch.epoch, "trial": epoch.trial, **self._trials[epoch.trial]}
        self._files.lines.add(json.dumps(own | values))
        for name, value in values.items():
            if value is not None:
                tag = f"trial_{epoch.trial}/{name}"
                self._files.points.add_scalar(tag, value, epoch.epoch)

    def lines(self) -> list[dict]:
        """All whole lines, as process 0 finds them."""
        path = self._folder / LINES
        return parallel.from_first(lambda: read_lines(path) if path.exists() else [])

    def flush(self) -> None:
        """What was added is kept, whatever happens to this process."""
        if self._files is not None:
            self._files.flush()

    def close(self) -> None:
        """Lines and points are there for every process."""
        if self._files is not None:
            self._files.points.close()
        parallel.first(self.flush)


class _Files:
    """What the process that writes has open."""

    def __init__(self, folder: Folder, kept: list[dict], epochs_done: int):
        self.lines = Lines(folder / LINES, [json.dumps(line) for line in kept])
        self._board = Mirror(folder / "tensorboard")
        purge = epochs_done + 1 if epochs_done else None
        self.points = SummaryWriter(str(self._board.local), purge_step=purge)

    def flush(self) -> None:
        self.lines.flush()
        self.points.flush()
        self._board.flush()
