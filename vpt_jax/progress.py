"""What a person sees while a run goes on; nothing when nobody is watching."""

import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table


class Bar:
    """A progress bar over steps, on a terminal only."""

    def __init__(self, num_steps: int):
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

    def update(self, done: int, loss: float, top1: float, rate: float) -> None:
        """Steps done, loss and top-1 [%] of the running epoch, images/s."""
        text = f"loss {loss:.3f}  top-1 {top1:.1f} %  {rate:,.0f} images/s"
        self._bar.update(self._task, completed=done, description=text)


def say(text: str) -> None:
    """A line for a person, beside the bar and apart from results on stdout."""
    print(text, file=sys.stderr, flush=True)


def table(rows: list[tuple[str, str]], title: str) -> None:
    """Two columns on stdout."""
    result = Table(title=title, show_header=False, title_justify="left")
    for row in rows:
        result.add_row(*row)
    Console().print(result)
