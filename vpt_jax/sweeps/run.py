"""`sweep`: every job of a configuration to its winner and result, or as far as others
leave it to this process. A killed sweep continues with the same command."""

import dataclasses
import os

from vpt_jax import config as configs
from vpt_jax.checkpoints import Pretrained
from vpt_jax.errors import UserError
from vpt_jax.experiment import Experiment
from vpt_jax.objectives import validation
from vpt_jax.progress import SweepTable, say
from vpt_jax.runs import run
from vpt_jax.runs.folder import environment, unnamed
from vpt_jax.storage import paths
from vpt_jax.storage.locks import Busy
from vpt_jax.storage.paths import Folder
from vpt_jax.sweeps import plan
from vpt_jax.sweeps.records import JobFolder
from vpt_jax.sweeps.selection import Selection, TuningImages, select
from vpt_jax.sweeps.unit import UnitRun
from vpt_jax.types import Config


def sweep(config: Config, workdir: str | os.PathLike | None = None) -> list[dict]:
    """Run the protocol for every task and variant of a configuration.

    Args:
        config: From `config.base` or a file of `configs/`; `config.sweep` says what is
            tried. The task may be a group.
        workdir: Where all is written; None: `runs/sweep-<config>-<hash>`.

    Returns:
        The content of each result.json, with 'workdir' added; without the jobs that
        wait for other shards, or whose data is missing.

    Raises:
        UserError: The configuration or folder cannot be used; no job could be run.
    """
    index, parts = plan.shard(config.sweep.shard)
    root = paths.workdir(workdir) if workdir else default_path(config)
    jobs = [JobRun(job, root / job.name) for job in plan.jobs(config)]
    backbones = Backbones()
    numbered = [(job, unit) for job in jobs for unit in job.units]
    mine = [pair for n, pair in enumerate(numbered) if n % parts == index]
    problems: dict[str, UserError] = {}
    titles = {j.title: (len(j.trials), j.experiment.data.task.objective) for j in jobs}
    with SweepTable(titles) as table:
        for job, unit in mine:
            if job.title in problems or job.result is not None:
                continue
            try:
                job.run(unit, backbones, table)
                job.finish(backbones, table)
            except UserError as error:
                if len(jobs) == 1 or isinstance(error, Busy):
                    raise
                problems[job.title] = error
                say(f"error: {job.title}: {error}")  # the others may still be run
        for job in jobs:
            if job.title not in problems:
                job.finish(backbones, table)  # a run that was killed left it to us
    waiting = [j.title for j in jobs if j.title not in problems and j.result is None]
    if waiting:
        say(
            f"{', '.join(waiting)}: the trials of other shards are not all done; the "
            "shard that finishes last chooses the winner"
        )
    results = [j.result | {"workdir": str(j.folder.path)} for j in jobs if j.result]
    if problems and not results and not waiting:
        raise next(iter(problems.values()))
    return results


def default_path(config: Config) -> Folder:
    """runs/sweep-<task>-<method>-<backbone>-<hash of what is tried>."""
    content = configs.to_dict(config)
    del content["sweep"]["shard"]
    parts = config.task, config.method.name, config.backbone.name
    return unnamed(*parts, content, prefix="sweep-")


class Backbones:
    """The backbone that was used last: one copy for all tasks."""

    def __init__(self):
        self._key: tuple = ()
        self._pretrained: Pretrained | None = None

    def get(self, experiment: Experiment) -> Pretrained:
        """That of an experiment."""
        network = experiment.network
        # Methods and heads decide which weights are kept in float32.
        key = network.backbone, network.method, network.objective
        if self._pretrained is None or key != self._key:
            self._pretrained = None  # before the next one takes memory
            self._pretrained, self._key = network.load_backbone(), key
        return self._pretrained


class JobRun:
    """A job in its folder."""

    def __init__(self, job: plan.Job, path: Folder):
        self.job = job
        self.title = job.name or job.config.task
        units = plan.units(job.config)
        self.experiment = units[0].experiment  # its task is that of all
        self.folder = JobFolder(
            path,
            {
                "config": plan.described(job.config),
                "units": [unit.as_json() for unit in units],
                "seeds": list(job.config.sweep.seeds),
            },
        )
        rank = validation(self.experiment.data.task.objective)
        self.units = [UnitRun(unit, self.folder, self.title, rank) for unit in units]
        self._images: TuningImages | None = None

    @property
    def trials(self) -> list[plan.GridTrial]:
        """Of all units."""
        return [trial for of_unit in self.units for trial in of_unit.unit.trials]

    @property
    def result(self) -> dict | None:
        """Of the finished job."""
        return self.folder.result

    def run(self, unit: UnitRun, backbones: Backbones, table: SweepTable) -> None:
        """Train what is missing of a unit."""
        if unit.records() is None:
            pretrained = backbones.get(unit.unit.experiment)
            sweep, tried = self.job.config.sweep, unit.unit
            epochs, trials = tried.experiment.epochs, len(tried.trials)
            rounds = plan.rungs(epochs, sweep.halving, trials)
            images = self._tuning_images()
            unit.train(sweep.trials, rounds, images, pretrained, table)
        table.done(self.title, unit.records() or [])

    def finish(self, backbones: Backbones, table: SweepTable) -> None:
        """Choose the winner and test it, if every unit is complete."""
        every: list[dict] = []
        for unit in self.units:
            records = unit.records()
            if records is None or self.result is not None:
                return
            every += records
        chosen = select(every, self.title, self.experiment.data.task.objective)
        try:
            with self.folder.testing():
                self.folder.write("selection.json", dataclasses.asdict(chosen))
                self._test(chosen, backbones, table)
        except Busy:
            if plan.shard(self.job.config.sweep.shard)[1] == 1:
                raise
            say(f"{self.title}: another shard is testing the winner")

    def _test(self, chosen: Selection, backbones: Backbones, table: SweepTable) -> None:
        """The winner on all training images, with every seed; then the test images."""
        unit = next(u.unit for u in self.units if u.unit.name == chosen.unit)
        seeds = tuple(self.job.config.sweep.seeds)
        final = plan.final(unit, chosen, seeds)
        table.note(self.title, f"winner on all images, {len(seeds)} seeds")
        path = self.folder.path / "final"
        with table.paused():
            result = run.run(final, path, backbones.get(final))
        del result["workdir"]
        metric = final.data.task.objective.METRIC
        result |= {f"val_{metric}": chosen.validation, "sweep": self._story(chosen)}
        self.folder.write("environment.json", environment())
        self.folder.finish(result)
        table.tested(self.title, result)

    def _story(self, chosen: Selection) -> dict:
        """What was tried, chosen and spent."""
        tried = [
            record
            for unit in self.units
            for cohort in unit.cohorts()
            for record in cohort.records or []
        ]
        num_images = len(self._tuning_images().train)
        epochs = self.experiment.epochs
        return dataclasses.asdict(chosen) | {
            "variant": self.job.variant,
            "variant_position": self.job.position,
            "ablation": self.job.config.sweep.ablation,
            "grid_trials": len(self.trials),
            "grid_seconds": sum(record["train_seconds"] for record in tried),
            "image_passes": num_images * sum(record["epochs"] for record in tried),
            "full_image_passes": num_images * epochs * len(self.trials),
        }

    def _tuning_images(self) -> TuningImages:
        if self._images is None:
            splits = dataclasses.replace(self.experiment.data, trained_on="train")
            train, val = splits.training(), splits.validation()
            assert val is not None  # not trained on
            self._images = TuningImages(train, val)
        return self._images
