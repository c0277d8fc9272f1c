"""What a person sees while a run goes on; nothing when nobody is watching."""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from types import ModuleType

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from vpt_jax import objectives


class Bar:
    """A progress bar over steps, on a terminal only."""

    def __init__(self, num_steps: int, metric: str):
        """`metric` names the score that `update` is told."""
        self._metric = metric
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("compiling", total=num_steps)

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()

    def update(self, done: int, loss: float, score: float, rate: float) -> None:
        """Steps done, loss and score of the running epoch, images/s."""
        text = f"loss {loss:.3f}  {self._metric} {score:.1f}  {rate:,.0f} images/s"
        self._bar.update(self._task, completed=done, description=text)


class Transfer:
    """A progress bar over bytes, on a terminal only."""

    def __init__(self, what: str, size: int):
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(what, total=size)

    def __enter__(self) -> "Transfer":
        self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()

    def add(self, size: int) -> None:
        """So many bytes more are there."""
        self._bar.advance(self._task, size)


class SweepTable:
    """A table of a sweep's tasks that keeps itself up to date, on a terminal only.

    Elsewhere a line is printed for every finished cohort of trials.
    """

    COLUMNS = ("task", "trials", "failed", "best val", "lr", "decay", "now", "left")

    def __init__(
        self,
        jobs: dict[str, tuple[int, ModuleType]],
        console: Console | None = None,
    ):
        """`jobs`: for each title how many trials, and the objective of the task."""
        self._rows = {
            title: {"total": total, "objective": objective}
            | {"done": {}, "now": "", "left": ""}
            for title, (total, objective) in jobs.items()
        }
        console = console or Console(stderr=True)
        self._live = (
            Live(console=console, auto_refresh=False) if console.is_terminal else None
        )
        self._cohort = (0, 0.0)  # trials in training, and when they were started

    def __enter__(self) -> "SweepTable":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_) -> None:
        if self._live:
            self._live.stop()

    def start(self, title: str, label: str, trials: int, epochs: int) -> None:
        """A cohort of `trials` is about to be trained."""
        self._cohort = trials, time.monotonic()
        now = f"{label}: " * bool(label) + f"{trials} trials, {epochs} epochs"
        self._rows[title]["now"] = now
        self._show()

    def update(self, title: str, share: float, rate: float) -> None:
        """That share of the cohort is trained, at `rate` images/s."""
        trials, started = self._cohort
        row = self._rows[title]
        todo = row["total"] - len(row["done"]) - share * trials
        if share:
            per_trial = (time.monotonic() - started) / (share * trials)
            row["left"] = _duration(per_trial * todo)
        head = row["now"].split(" | ")[0]
        row["now"] = f"{head} | {100 * share:.0f} %, {rate:,.0f} images/s"
        self._show()

    def cohort_done(self, title: str, records: list[dict]) -> None:
        """Records of a cohort, just trained."""
        self.done(title, records)
        if not self._live:
            row, best = self._rows[title], self._best(title)
            text = f"best {self._score(title, best)}" if best else "none has finished"
            say(f"{title}: {len(row['done'])} of {row['total']} trials, {text}")

    def done(self, title: str, records: list[dict]) -> None:
        """Records of finished trials."""
        row = self._rows[title]
        row["done"] |= {(r["unit"], r["position"]): r for r in records}
        row["now"] = row["left"] = ""
        self._show()

    def note(self, title: str, text: str) -> None:
        """What is going on besides trials of the grid."""
        self._rows[title]["now"] = text
        self._show() if self._live else say(f"{title}: {text}")

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal to another display while the block runs."""
        if self._live:
            self._live.stop()
        yield
        if self._live:
            self._live.start()

    def tested(self, title: str, result: dict) -> None:
        """The job is over."""
        objective = self._rows[title]["objective"]
        key = f"test_{objective.METRIC}"
        score, std = result[key], result[f"{key}_std"]
        text = "failed" if score is None else f"test {score:.2f} {objective.UNIT}"
        self._rows[title]["now"] = text + (f" +- {std:.2f}" if std is not None else "")
        self._show()

    def table(self) -> Table:
        """What is shown."""
        table = Table(*self.COLUMNS, title="sweep", title_justify="left")
        for title, row in self._rows.items():
            best = self._best(title)
            failed = sum(r["status"] != "ok" for r in row["done"].values())
            numbers = ("", "", "")
            if best:
                numbers = (
                    self._score(title, best),
                    f"{best['lr']:g}",
                    f"{best['weight_decay']:g}",
                )
            done = f"{len(row['done'])} / {row['total']}"
            table.add_row(
                title, done, str(failed or ""), *numbers, row["now"], row["left"]
            )
        return table

    def _best(self, title: str) -> dict | None:
        good = [r for r in self._rows[title]["done"].values() if r["status"] == "ok"]
        objective = self._rows[title]["objective"]
        return max(good, key=objectives.validation(objective)) if good else None

    def _score(self, title: str, record: dict) -> str:
        objective = self._rows[title]["objective"]
        return f"{record[f'val_{objective.METRIC}']:.1f} {objective.UNIT}"

    def _show(self) -> None:
        if self._live:
            self._live.update(self.table(), refresh=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def say(text: str) -> None:
    """A line for a person, beside the bar and apart from results on stdout."""
    print(text, file=sys.stderr, flush=True)


def table(
    rows: Sequence[tuple[str, ...]], title: str, columns: tuple[str, ...] = ()
) -> None:
    """Columns on stdout, with their names above them if they have any."""
    result = Table(*columns, title=title, show_header=bool(columns))
    result.title_justify = "left"
    for row in rows:
        result.add_row(*row)
    Console().print(result)
