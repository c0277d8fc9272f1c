"""The trials of one compiled program: rounds of cohorts, each done or not."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from vpt_jax import parallel
from vpt_jax.checkpoints import Pretrained
from vpt_jax.experiment import Experiment
from vpt_jax.progress import SweepTable
from vpt_jax.runs.train import train_trials
from vpt_jax.storage.files import make
from vpt_jax.sweeps import memory, plan
from vpt_jax.sweeps.records import JobFolder, forget
from vpt_jax.sweeps.selection import TuningImages, survivors
from vpt_jax.training import inputs, loop
from vpt_jax.training.setup import Setup


@dataclasses.dataclass(frozen=True)
class Cohort:
    """Trials that are trained at once.

    Attributes:
        round, number: Of the cohort; a round is one stage of halving.
        epochs: Of this round.
        positions: Of the trials in their unit.
        records: One per trial; None while it is not done.
    """

    round: int
    number: int
    epochs: int
    positions: list[int]
    records: list[dict] | None


class UnitRun:
    """A unit in the folder of its job.

    Its plan.json holds what was decided before its first trial: 'cohort', the trials
    that are trained at once, 'rounds', and 'inputs', where what they read is kept.
    """

    def __init__(
        self,
        unit: plan.Unit,
        folder: JobFolder,
        title: str,
        rank: Callable[[dict], Any],
    ):
        """
        Args:
            unit: What is tried.
            folder: Of its job.
            title: What a person knows the job by.
            rank: Of a trial's record, highest for those that halving keeps.
        """
        self.unit = unit
        self.title = title
        self._rank = rank
        self._folder = folder
        self._plan = f"units/{unit.name}/plan.json"
        self._objective = unit.experiment.data.task.objective

    def cohorts(self) -> list[Cohort]:
        """Those of all rounds that can be known; none before the unit has a plan."""
        known = self._folder.read(self._plan)
        if known is None:
            return []
        found, positions = [], list(range(len(self.unit.trials)))
        for r, (epochs, count) in enumerate(known["rounds"]):
            if r > 0:
                records = _records(found, r - 1)
                if records is None:
                    break
                positions = survivors(records, count, self._rank)
            for c, members in enumerate(plan.cohorts(positions, known["cohort"])):
                done = self._folder.records(self.unit.name, r, c)
                found.append(Cohort(r, c, epochs, members, done))
        return found

    def records(self) -> list[dict] | None:
        """Of the last round, from which the winner is chosen; None while unfinished."""
        found = self.cohorts()
        if not found or any(cohort.records is None for cohort in found):
            return None
        # Where all trials of a round failed, there is no next one.
        return _records(found, found[-1].round)

    def train(
        self,
        at_once: int | None,
        rounds: list[tuple[int, int]],
        images: TuningImages,
        pretrained: Pretrained,
        table: SweepTable,
    ) -> None:
        """Train what is missing.

        Args:
            at_once: Trials at once on a device; None: as many as fit.
            rounds: From `plan.rungs`.
            images, pretrained: What to train on, and which backbone.
            table: Is told what happens.

        Raises:
            Busy: Another process does so already.
            UserError: Not enough memory.
        """
        with self._folder.working(self.unit.name):
            setups: dict[int, Setup] = {}
            known = self._folder.read(self._plan)
            if known is None:
                known = self._decide(at_once, rounds, images, pretrained, setups)
                self._folder.write(self._plan, known)
            for before in self.cohorts():
                table.done(self.title, before.records or [])
            while (cohort := self._next()) is not None:
                own = self.unit.experiment.with_epochs(cohort.epochs)
                setup = self._setup(own, images, pretrained, setups, known["inputs"])
                table.start(
                    self.title, self.unit.label, len(cohort.positions), own.epochs
                )
                records = self._train_cohort(cohort, known, own, setup, images, table)
                self._folder.record(
                    self.unit.name, cohort.round, cohort.number, records
                )
                table.cohort_done(self.title, records)

    def _decide(self, at_once, rounds, images, pretrained, setups) -> dict:
        """What plan.json then holds."""
        unit, devices = self.unit, jax.device_count()
        trials = len(unit.trials)
        own = unit.experiment.with_epochs(rounds[0][0])
        whole = own.make_setup(images.train.labels, pretrained)
        place = inputs.decide(whole, own.limits, images.train)
        setup = setups[own.epochs] = inputs.placed(whole, place)
        if at_once is not None:
            fitting = at_once * devices
        else:
            fitting = memory.trials_at_once(setup, place, images.train, trials)
        size = plan.cohort_size(trials, fitting, devices)
        return {"cohort": size, "rounds": rounds, "inputs": place}

    def _setup(self, own: Experiment, images, pretrained, setups, place: str) -> Setup:
        """One for all cohorts of as many epochs, so that they compile once."""
        if own.epochs not in setups:
            setup = own.make_setup(images.train.labels, pretrained)
            setups[own.epochs] = inputs.placed(setup, place)
        return setups[own.epochs]

    def _next(self) -> Cohort | None:
        for cohort in self.cohorts():
            if cohort.records is None:
                return cohort
            # A process may have died between the records and this.
            forget(self._folder.cohort(self.unit.name, cohort.round, cohort.number))
        return None

    def _train_cohort(self, cohort, known, own, setup, images, table) -> list[dict]:
        path = self._folder.cohort(self.unit.name, cohort.round, cohort.number)
        make(path)
        trials = [self.unit.trials[position] for position in cohort.positions]
        outcome, lines = train_trials(
            *(setup, trials, images.train, images.val, own.val_every),
            known["inputs"],
            path,
            lambda done, loss, score, rate: table.update(
                self.title, done / setup.num_steps, rate
            ),
            # The last cohort of a round is filled up, a round that is smaller as a
            # whole has a program of its own.
            known["cohort"]
            if cohort.number
            else min(known["cohort"], _filled(len(trials))),
        )
        return self._as_records(cohort, trials, outcome, lines)

    def _as_records(
        self,
        cohort: Cohort,
        trials: list[plan.GridTrial],
        outcome: loop.Outcome,
        lines: list[dict],
    ) -> list[dict]:
        alive = parallel.fetch(outcome.state.alive)
        last = {x["trial"]: x for x in lines if x["epoch"] == cohort.epochs}
        metric = self._objective.METRIC
        shown = (f"val_{metric}", "val_loss", f"train_{metric}", "train_loss")
        records = []
        for k, trial in enumerate(trials):
            line = last[k] if alive[k] else {}
            status = f"failed: the loss was not finite at lr {trial.lr:g}"
            records.append(
                {
                    "unit": self.unit.name,
                    "label": self.unit.label,
                    "round": cohort.round,
                    "position": cohort.positions[k],
                    **dataclasses.asdict(trial),
                    "epochs": cohort.epochs,
                    **{name: line.get(name) for name in shown},
                    "train_seconds": outcome.train_seconds / len(trials),
                    "status": "ok" if alive[k] else status,
                }
            )
        return records


def _filled(count: int) -> int:
    """A multiple of the devices, unless there are fewer trials than devices."""
    devices = jax.device_count()
    return count if count < devices else -(-count // devices) * devices


def _records(cohorts: list[Cohort], round_: int) -> list[dict] | None:
    """Of a whole round; None while a cohort of it is missing."""
    found: list[dict] = []
    for cohort in cohorts:
        if cohort.round == round_:
            if cohort.records is None:
                return None
            found += cohort.records
    return found
