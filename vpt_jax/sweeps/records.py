"""The folder of a job: what is done, and who is at work.

plan.json                  the configuration and every trial, written before the start
units/U/plan.json          the chunks of unit U, written before its first
units/U/R-C/               chunk C of round R: metrics.jsonl, tensorboard/, and
                           checkpoints/ while it is being trained
units/U/R-C/trials.jsonl   one line per trial; a chunk that has it is done
selection.json             the winner
final/                     its runs, as --mode train leaves them
result.json                of the final runs, with the selection: the job is done

Files appear whole or not at all. A lock is held by the kernel for a living process, so
one that outlives its process stops nobody.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import socket
from collections.abc import Iterator

from vpt_jax import parallel
from vpt_jax.errors import UserError
from vpt_jax.progress import say
from vpt_jax.workdir import claim, difference, write_text

TRIALS = "trials.jsonl"


class Folder:
    """A job's folder, made or found again.

    Raises:
        UserError: It cannot be written, or another configuration made it.
    """

    def __init__(self, path: pathlib.Path, plan: dict):
        self.path = path

        def start() -> None:
            with _lock(path / "plan.lock", wait=True):
                claim(path / "plan.json", plan, "sweep", _difference)

        parallel.first(start)

    def unit(self, name: str) -> pathlib.Path:
        """Where a unit's chunks are."""
        return self.path / "units" / name

    def chunk(self, unit: str, round_: int, chunk: int) -> pathlib.Path:
        """Where a chunk is trained and recorded."""
        return self.unit(unit) / f"{round_}-{chunk:03d}"

    def read(self, unit: str, round_: int, chunk: int) -> list[dict] | None:
        """The records of a finished chunk; None while it is not."""
        path = self.chunk(unit, round_, chunk) / TRIALS
        try:
            return [json.loads(line) for line in path.read_text().splitlines()]
        except FileNotFoundError:
            return None

    def write(self, unit: str, round_: int, chunk: int, records: list[dict]) -> None:
        """Record a chunk as done; its checkpoints are not needed any more."""
        folder = self.chunk(unit, round_, chunk)
        lines = "".join(json.dumps(record) + "\n" for record in records)

        def done() -> None:
            write_text(folder / TRIALS, lines)
            forget(folder)

        parallel.first(done)


def forget(chunk: pathlib.Path) -> None:
    """Remove the checkpoints of a chunk that is done."""
    shutil.rmtree(chunk / "checkpoints", ignore_errors=True)


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Hold a lock file while the block runs; the processes of one program share it.

    Args:
        path: The file; it names the process that holds it.

    Raises:
        UserError: Another program that is alive holds it.
    """
    with contextlib.ExitStack() as held:
        parallel.first(lambda: held.enter_context(_lock(path, wait=False)))
        yield


@contextlib.contextmanager
def _lock(path: pathlib.Path, wait: bool) -> Iterator[None]:
    """Wait for the lock, or refuse to."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")
    except OSError as error:
        raise UserError(f"workdir {path.parent} cannot be used: {error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise Busy(
                f"{path.parent} is being worked on by {_holder(file)}; wait for it, "
                "stop it, or give each process a part with config.sweep.shard=i/n"
            ) from error
        before = _holder(file)
        if before:
            say(f"{path} was left by {before}, which is gone: taken over")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)  # while it is still held: let go of on purpose


class Busy(UserError):
    """Another process is at work there."""


def _difference(found: dict, wanted: dict) -> str:
    """Where two plans differ, in a few words."""
    if found["config"] != wanted["config"]:
        return difference(found["config"], wanted["config"])
    return "the trials of its grid"


def _holder(file) -> str:
    file.seek(0)
    return file.read().strip()
