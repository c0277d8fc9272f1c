"""The folder of a job: what is done, and who is at work.

plan.json                  the configuration and every trial, written before the start
units/U/plan.json          the cohorts of unit U, written before its first
units/U/R-C/               cohort C of round R: metrics.jsonl, tensorboard/, and
                           checkpoints/ while it is being trained
units/U/R-C/trials.jsonl   one line per trial; a cohort that has it is done
selection.json             the winner
final/                     its runs, as --mode train leaves them
result.json                of the final runs, with the selection: the job is done
"""

import contextlib
import json

from vpt_jax import parallel
from vpt_jax.runs.folder import RunFolder, difference
from vpt_jax.storage.files import read_lines, remove, write_text
from vpt_jax.storage.paths import Folder

TRIALS = "trials.jsonl"
INSTEAD = "give each process a part with config.sweep.shard=i/n"


class JobFolder(RunFolder):
    """A job's folder, made or found again; see `RunFolder`."""

    def __init__(self, path: Folder, plan: dict):
        super().__init__(path, "plan.json", plan, "sweep", _difference)

    def working(self, unit: str) -> contextlib.AbstractContextManager[None]:
        """Hold a unit while it is trained."""
        return self.locked(f"units/{unit}/lock", INSTEAD)

    def testing(self) -> contextlib.AbstractContextManager[None]:
        """Hold the job while its winner is tested."""
        return self.locked("final.lock", INSTEAD)

    def cohort(self, unit: str, round_: int, number: int) -> Folder:
        """Where a cohort is trained and recorded."""
        return self.path / "units" / unit / f"{round_}-{number:03d}"

    def records(self, unit: str, round_: int, number: int) -> list[dict] | None:
        """Of a finished cohort, as process 0 finds them; None while it is not."""
        path = self.cohort(unit, round_, number) / TRIALS
        return parallel.from_first(lambda: read_lines(path) if path.exists() else None)

    def record(self, unit: str, round_: int, number: int, records: list[dict]) -> None:
        """Record a cohort as done; its checkpoints are not needed any more."""
        folder = self.cohort(unit, round_, number)
        lines = "".join(json.dumps(record) + "\n" for record in records)

        def done() -> None:
            write_text(folder / TRIALS, lines)
            forget(folder)

        parallel.first(done)


def forget(cohort: Folder) -> None:
    """Remove the checkpoints of a cohort that is done."""
    remove(cohort / "checkpoints")


def _difference(found: dict, wanted: dict) -> str:
    """Where two plans differ, in a few words."""
    if found["config"] != wanted["config"]:
        return difference(found["config"], wanted["config"])
    return "the trials of its grid"
