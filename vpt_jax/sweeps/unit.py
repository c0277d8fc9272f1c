"""The trials of one compiled program: rounds of chunks, each done or not."""

import dataclasses

import jax
from ml_collections import ConfigDict

from vpt_jax import api, parallel
from vpt_jax.checkpoints import Pretrained
from vpt_jax.errors import UserError
from vpt_jax.progress import SweepTable
from vpt_jax.sweeps import memory, plan
from vpt_jax.sweeps.records import Folder, forget, locked
from vpt_jax.sweeps.selection import TuningImages, survivors
from vpt_jax.training import inputs, loop
from vpt_jax.training.step import Setup
from vpt_jax.workdir import read_json, write_json


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Trials that are trained at once.

    Attributes:
        round, number: Of the chunk; a round is one stage of halving.
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
    """A unit in the folder of its job."""

    def __init__(self, unit: plan.Unit, folder: Folder, title: str):
        self.unit = unit
        self.folder = folder
        self.title = title
        self._plan = folder.unit(unit.name) / "plan.json"

    def chunks(self) -> list[Chunk]:
        """Those of all rounds that can be known; none before the unit has a plan."""
        known = read_json(self._plan)
        if known is None:
            return []
        found, positions = [], list(range(len(self.unit.trials)))
        for r, (epochs, count) in enumerate(known["rounds"]):
            if r > 0:
                records = _records(found, r - 1)
                if records is None:
                    break
                positions = survivors(records, count)
            for c, members in enumerate(plan.chunks(positions, known["chunk"])):
                done = self.folder.read(self.unit.name, r, c)
                found.append(Chunk(r, c, epochs, members, done))
        return found

    def records(self) -> list[dict] | None:
        """Of the last round, from which the winner is chosen; None while unfinished."""
        found = self.chunks()
        if not found or any(chunk.records is None for chunk in found):
            return None
        # Where all trials of a round failed, there is no next one.
        return _records(found, found[-1].round)

    def train(
        self,
        config: ConfigDict,
        images: TuningImages,
        pretrained: Pretrained,
        table: SweepTable,
    ) -> None:
        """Train what is missing.

        Args:
            config: The job's, of which `sweep` is read.
            images, pretrained: What to train on, and which backbone.
            table: Is told what happens.

        Raises:
            Busy: Another process does so already.
            UserError: Not enough memory.
        """
        with locked(self._plan.with_name("lock")):
            setups: dict[int, Setup] = {}
            (missing,) = parallel.agree(read_json(self._plan) is None)
            if missing:
                self._write_plan(config, images, pretrained, setups)
            size = read_json(self._plan)["chunk"]
            while (chunk := self._next()) is not None:
                own = _with_epochs(self.unit.config, chunk.epochs)
                setup = self._setup(own, images, pretrained, setups)
                table.start(
                    self.title, self.unit.label, len(chunk.positions), own.epochs
                )
                records = self._train_chunk(chunk, size, own, setup, images, table)
                self.folder.write(self.unit.name, chunk.round, chunk.number, records)
                table.chunk_done(self.title, records)

    def _write_plan(self, config, images, pretrained, setups) -> None:
        unit, sweep = self.unit, config.sweep
        rounds = plan.rungs(unit.config.epochs, sweep.halving, len(unit.trials))
        own = _with_epochs(unit.config, rounds[0][0])
        setup = self._setup(own, images, pretrained, setups)
        _, kind = inputs.fit(setup, api.limits(own), images.train)
        devices, trials = jax.device_count(), len(unit.trials)
        if sweep.trials is not None:
            if sweep.trials < 1:
                raise UserError(f"sweep.trials {sweep.trials} must be at least 1")
            fitting = sweep.trials * devices
        else:
            fitting = memory.trials_at_once(setup, kind, images.train, trials)
        size = plan.chunk_size(trials, fitting, devices)
        found = {"chunk": size, "rounds": rounds}
        parallel.first(lambda: write_json(self._plan, found))

    def _setup(self, config, images, pretrained, setups) -> Setup:
        """One for all chunks of as many epochs, so that they compile once."""
        if config.epochs not in setups:
            labels, classes = images.train.labels, images.num_classes
            setup = api.make_setup(config, labels, classes, pretrained)
            fitted, _ = inputs.fit(setup, api.limits(config), images.train)
            setups[config.epochs] = fitted
        return setups[config.epochs]

    def _next(self) -> Chunk | None:
        for chunk in self.chunks():
            if chunk.records is None:
                return chunk
            # A process may have died between the records and this.
            forget(self.folder.chunk(self.unit.name, chunk.round, chunk.number))
        return None

    def _train_chunk(self, chunk, size, config, setup, images, table) -> list[dict]:
        path = self.folder.chunk(self.unit.name, chunk.round, chunk.number)
        path.mkdir(parents=True, exist_ok=True)
        trials = [self.unit.trials[position] for position in chunk.positions]
        try:
            outcome, lines = api.train_trials(
                config,
                setup,
                [dataclasses.asdict(trial) for trial in trials],
                images.train,
                images.val,
                path,
                lambda done, loss, top1, rate: table.update(
                    self.title, done / setup.num_steps, rate
                ),
                # The last chunk of a round is filled up, a round that is smaller as a
                # whole has a program of its own.
                size if chunk.number else min(size, _filled(len(trials))),
            )
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise UserError(
                f"{len(trials)} trials at once need more memory than there is; start "
                f"again in another --workdir with config.sweep.trials="
                f"{max(1, len(trials) // 2 // jax.device_count())}"
            ) from error
        return self._as_records(chunk, trials, outcome, lines)

    def _as_records(
        self,
        chunk: Chunk,
        trials: list[plan.Trial],
        outcome: loop.Outcome,
        lines: list[dict],
    ) -> list[dict]:
        alive = parallel.fetch(outcome.state.alive)
        last = {x["trial"]: x for x in lines if x["epoch"] == chunk.epochs}
        records = []
        for k, trial in enumerate(trials):
            line = last[k] if alive[k] else {}
            status = f"failed: the loss was not finite at lr {trial.lr:g}"
            records.append(
                {
                    "unit": self.unit.name,
                    "label": self.unit.label,
                    "round": chunk.round,
                    "position": chunk.positions[k],
                    **dataclasses.asdict(trial),
                    "epochs": chunk.epochs,
                    "val_top1": line.get("val_top1"),
                    "train_top1": line.get("train_top1"),
                    "train_loss": line.get("train_loss"),
                    "train_seconds": outcome.train_seconds / len(trials),
                    "status": "ok" if alive[k] else status,
                }
            )
        return records


def _filled(count: int) -> int:
    """A multiple of the devices, unless there are fewer trials than devices."""
    devices = jax.device_count()
    return count if count < devices else -(-count // devices) * devices


def _records(chunks: list[Chunk], round_: int) -> list[dict] | None:
    """Of a whole round; None while a chunk of it is missing."""
    of_round = [chunk.records for chunk in chunks if chunk.round == round_]
    if any(records is None for records in of_round):
        return None
    return [record for records in of_round for record in records]


def _with_epochs(config: ConfigDict, epochs: int) -> ConfigDict:
    """A resolved configuration for a shorter round, its warm-up shortened alike."""
    own = ConfigDict(config.copy_and_resolve_references())
    own.optim.warmup_epochs = config.optim.warmup_epochs * epochs // config.epochs
    own.epochs = epochs
    return own
