"""`--mode plan`: what a run or a sweep will take on devices that need not be here.

Every program that the run would execute is compiled for them, from shapes alone. What
fits is what XLA says it needs; what it takes is XLA's own schedule on a TPU and the
roofline on a GPU: estimates, no measurements.
"""

import collections
import dataclasses
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from vpt_jax import config as configs
from vpt_jax import parallel, resolution
from vpt_jax.data.splits import HELD_OUT, TRAINED_ON
from vpt_jax.errors import UserError
from vpt_jax.experiment import Experiment
from vpt_jax.planning import compiled, hlo
from vpt_jax.planning.flops import products
from vpt_jax.planning.target import Target
from vpt_jax.progress import say
from vpt_jax.runs import search
from vpt_jax.sweeps import plan as sweeps
from vpt_jax.training import inputs, pixels
from vpt_jax.training.setup import Setup
from vpt_jax.types import Config, Tree

SHARE = 0.95  # of a chip's memory; the rest is the runtime's
FOR_INPUTS = 0.5  # of a chip's memory, as `inputs.Limits` has it

Counts = collections.namedtuple("Counts", "train val test")


@dataclasses.dataclass(frozen=True)
class Program:
    """One compiled program; bytes, FLOPs and traffic are those of one chip.

    Attributes:
        name: 'init', 'prefix', 'chunk' (one training step) or 'outputs' (one batch).
        calls: How often it is run.
        images: That one call takes through the network.
        bytes: 'arguments', 'temporaries', 'outputs', and 'all' that it holds at once.
        flops: Of the products of one call.
        traffic_bytes: Of the memory, as XLA counts it; where it does not (GPU), each
            byte that the program holds, once; None where it counts a loop once (TPU).
        estimated_cycles: Of XLA's schedule; None where its compiler has none, or its
            text does not say how often a loop runs.
        seconds: Of one call; None where nothing is known of it.
        of_peak: The part of the chip's peak that its FLOPs then take.
        collectives: By kind, their 'count' and 'bytes' in one call.
        fits: Whether there is room for it.
    """

    name: str
    calls: int
    images: int
    bytes: dict[str, int]
    flops: float
    traffic_bytes: float | None
    estimated_cycles: int | None
    seconds: float | None
    of_peak: float | None
    collectives: dict[str, dict[str, int]]
    fits: bool


@dataclasses.dataclass(frozen=True)
class Stage:
    """Trials that run the same programs: a run, or a unit of a sweep.

    Attributes:
        name: What it is.
        trials, at_once: In all, and in one program.
        steps: Of all trials, one after the other where they are not at once.
        place: Where what the steps read is kept.
        bytes: On a chip: 'weights', 'state' of the trials at once, 'inputs'.
        programs: See there.
    """

    name: str
    trials: int
    at_once: int
    steps: int
    place: str
    bytes: dict[str, int]
    programs: tuple[Program, ...]

    @property
    def fits(self) -> bool:
        """Whether all of its programs do."""
        return all(program.fits for program in self.programs)


def plan(config: Config, target: Target, sweep: bool) -> dict:
    """What the run or sweep of a configuration takes; see `--output plan.json`.

    Args:
        config: As for `tune` or `sweep`.
        target: The devices.
        sweep: Whether it is a sweep.

    Raises:
        UserError: As `tune`; or the number of images is not known here.
    """
    stages = _stages(config, target, sweep)
    proposal = None
    if not all(stage.fits for stage in stages):
        proposal = _propose(config, target, sweep)
    seconds = _total(stages)
    chips = len(target.devices)
    return {
        "on": target.name,
        "chips": chips,
        "chip_bytes": target.chip.memory if target.chip else None,
        "estimate": target.estimate,
        "jax": jax.__version__,
        "stages": [
            dataclasses.asdict(stage) | {"fits": stage.fits} for stage in stages
        ],
        "fits": all(stage.fits for stage in stages),
        "proposal": proposal,
        "steps": sum(stage.steps for stage in stages),
        "seconds": seconds,
        "chip_hours": None if seconds is None else seconds * chips / 3600,
    }


def _stages(config: Config, target: Target, sweep: bool) -> list[Stage]:
    if not sweep:
        experiment = resolution.resolve(config, target.platform)
        found = []
        for name, other in experiment.beside.items():
            found += _single(f"beside: {name}", other, target)
        return [*found, *_single("the run", experiment, target)]
    [job, *others] = sweeps.jobs(config)
    if others:
        raise UserError(
            f"--config stands for {1 + len(others)} sweeps; plan one of them: a single "
            "task, without variants"
        )
    found = []
    units = sweeps.units(job.config, target.platform)
    for unit in units:
        own = dataclasses.replace(
            unit.experiment,
            data=dataclasses.replace(unit.experiment.data, trained_on="train"),
        )
        halving = job.config.sweep.halving
        rounds = sweeps.rungs(own.epochs, halving, len(unit.trials))
        name = f"grid {unit.label}".strip()
        found.append(_grid(name, own, target, rounds, job.config.sweep.trials))
    seeds = tuple(job.config.sweep.seeds)
    first = units[0].experiment
    trained_on = TRAINED_ON[sweeps.final_split(first)]
    last = dataclasses.replace(
        first, data=dataclasses.replace(first.data, trained_on=trained_on), seeds=seeds
    )
    return [*found, _run("the winner", last, target, len(seeds))]


def _single(name: str, experiment: Experiment, target: Target) -> list[Stage]:
    """A run, and before it the search for its learning rate where it has one."""
    last = _run(name, experiment, target, len(experiment.seeds))
    if experiment.search is None:
        return [last]
    tried = search.unit(experiment)
    rounds, title = search.rounds(tried), f"{name}: the search for a learning rate"
    return [_grid(title, tried.experiment, target, rounds, None), last]


def _run(name: str, experiment: Experiment, target: Target, trials: int) -> Stage:
    """All seeds at once, and the test images once."""
    counts = _counts(experiment)
    setup, place, fed = _setup(experiment, target, counts)
    scored = _scored(setup, experiment.epochs, experiment.val_every, counts.val)
    calls = {
        "prefix": -(-counts.train // inputs.BATCH),
        "chunk": setup.num_steps,
        "outputs": scored + _batches(setup, counts.test),
    }
    return _stage(name, setup, target, place, fed, trials, trials, calls)


def _grid(name: str, own: Experiment, target: Target, rounds, at_once) -> Stage:
    """The trials of a unit, in as many cohorts as memory asks for."""
    counts, devices = _counts(own), len(target.devices)
    setup, place, fed = _setup(own, target, counts)
    trials = rounds[0][1]

    def needed(count: int) -> float:
        mesh = parallel.make_mesh(count, setup.batch_size, target.devices)
        arguments = compiled.chunk_arguments(setup, mesh, place, fed, count)
        traced = compiled.chunk(setup, mesh, place, *arguments)
        try:
            return compiled.bytes_of(compiled.compile_on(mesh, traced))
        except compiled.TooLarge as error:
            return error.needed

    if at_once is not None:
        fitting = at_once * devices
    elif target.chip is None:
        fitting = trials
    else:
        fitting = compiled.fitting(needed, trials, SHARE * target.chip.memory)
    size = sweeps.cohort_size(trials, fitting, devices)
    steps = scored = prefixes = 0
    for epochs, count in rounds:
        cohorts = -(-count // size)
        steps += cohorts * epochs * setup.steps_per_epoch
        scored += cohorts * _scored(setup, epochs, own.val_every, counts.val)
        prefixes += cohorts * -(-counts.train // inputs.BATCH)
    calls = {"prefix": prefixes, "chunk": steps, "outputs": scored}
    return _stage(name, setup, target, place, fed, trials, size, calls)


def _scored(setup: Setup, epochs: int, every: int, images: int) -> int:
    """Batches of validation images: every so many epochs, and after the last."""
    return _batches(setup, images) * (-(-epochs // every) if every else 1)


def _batches(setup: Setup, images: int) -> int:
    """That are scored for so many images; of windows, a photograph of 4 : 3 has two."""
    windows = 2 if setup.network.objective.DENSE else 1
    return -(-images * windows // _scoring_batch(setup))


def _scoring_batch(setup: Setup) -> int:
    return pixels.BATCH if setup.network.objective.DENSE else inputs.BATCH


def _stage(name, setup, target, place, fed, trials, at_once, calls) -> Stage:
    mesh = parallel.make_mesh(at_once, setup.batch_size, target.devices)
    size, batch = setup.network.image_size, _scoring_batch(setup)
    raw = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    arguments = compiled.chunk_arguments(setup, mesh, place, fed, at_once)
    made = {"init": compiled.init(setup, mesh, at_once)}
    if place in (inputs.CACHED, inputs.CACHED_ON_HOST):
        made["prefix"] = compiled.prefix(setup, mesh, raw)
    made["chunk"] = compiled.chunk(setup, mesh, place, *arguments)
    made["outputs"] = compiled.outputs(setup, mesh, at_once, raw)
    cohorts = -(-trials // at_once)
    images = {"prefix": batch, "outputs": batch * at_once}
    images["chunk"] = setup.batch_size * at_once
    programs = []
    for key, traced in made.items():
        say(f"{name}: compiling {key}")
        often = calls.get(key, cohorts), images.get(key, 0)
        programs.append(_program(key, traced, mesh, target, *often))
    parts = compiled.parts_of(arguments)
    return Stage(name, trials, at_once, calls["chunk"], place, parts, tuple(programs))


def _program(name, traced, mesh, target: Target, calls: int, images: int) -> Program:
    flops = products(traced.jaxpr.jaxpr) / mesh.size
    try:
        program = compiled.compile_on(mesh, traced)
    except compiled.TooLarge as error:
        return _too_large(name, error.needed, calls, images, flops)
    used, text = program.memory_analysis(), program.as_text() or ""
    assert used is not None  # XLA has it for every program
    moved: dict[str, dict[str, int]] = {}
    for found in hlo.collectives(text):
        kind = moved.setdefault(found.kind, {"count": 0, "bytes": 0})
        kind["count"] += 1
        kind["bytes"] += found.bytes
    all_ = compiled.bytes_of(program)
    traffic = (program.cost_analysis() or {}).get("bytes accessed", all_)
    known, operations = hlo.loops_of(text), []
    if target.platform == "tpu":
        operations = hlo.operations(text)
        traffic = traffic if set(known) <= {None} else None
    # Of a chunk, one step: the bounds of the loop over them are given when it runs.
    hidden = target.platform == "tpu" and known.count(None) > (name == "chunk")
    seconds = None if hidden else target.seconds(operations, flops, traffic)
    return Program(
        name=name,
        calls=calls,
        images=images,
        bytes={
            "arguments": used.argument_size_in_bytes,
            "temporaries": used.temp_size_in_bytes,
            "outputs": used.output_size_in_bytes,
            "all": all_,
        },
        flops=flops,
        traffic_bytes=traffic,
        estimated_cycles=None if hidden else sum(x.cycles for x in operations) or None,
        seconds=seconds,
        of_peak=target.of_peak(flops, seconds),
        collectives=moved,
        fits=target.chip is None or all_ <= SHARE * target.chip.memory,
    )


def _too_large(name, needed: float, calls: int, images: int, flops: float) -> Program:
    """A program that its compiler could not make fit."""
    least = int(needed) if math.isfinite(needed) else 0
    held = {"arguments": 0, "temporaries": least, "outputs": 0, "all": least}
    unknown = {"estimated_cycles": None, "seconds": None, "of_peak": None}
    return Program(
        *(name, calls, images, held, flops, None),
        **unknown,
        collectives={},
        fits=False,
    )


def _propose(config: Config, target: Target, sweep: bool) -> dict:
    """The first change that makes it fit, of those that cost least, and what does not.

    What is lost by it: compiling differently costs time, a smaller batch is another
    training.
    """
    tried = []
    for changes in _ways(config, target):
        text = " ".join(f"--config.{key}={value}" for key, value in changes.items())
        say(f"trying {text}")
        own = configs.changed(config, changes)
        stages = _stages(own, target, sweep)
        if all(stage.fits for stage in stages):
            seconds = _total(stages)
            return {"change": text, "tried": tried, "seconds": seconds}
        tried.append(text)
    return {"change": None, "tried": tried, "seconds": None}


def _ways(config: Config, target: Target) -> Iterator[dict]:
    experiment = resolution.resolve(config, target.platform)
    remat = {"backbone.remat": True}
    shard = {"backbone.shard": True, "backbone.scan": True}
    several = len(target.devices) > 1
    if not experiment.network.backbone.remat:
        yield remat
    if several and not experiment.network.backbone.shard:
        yield shard
        yield remat | shard
    batch = experiment.batch_size // 2
    while batch >= max(1, experiment.batch_size // 64):
        yield {"batch_size": batch, **remat, **(shard if several else {})}
        batch //= 2


def _setup(
    experiment: Experiment, target: Target, counts: Counts
) -> tuple[Setup, str, tuple[Tree, Tree]]:
    """What is trained, where what its steps read is kept, and the shapes of that."""
    pretrained = experiment.network.abstract_backbone()
    labels = np.zeros(counts.train, np.int32)
    setup = experiment.make_setup(labels, pretrained)
    targets = jax.ShapeDtypeStruct(labels.shape, labels.dtype)
    room = FOR_INPUTS * target.chip.memory if target.chip else math.inf
    if setup.cut and inputs.cache_bytes(setup) <= room:
        cached = inputs.cached_shape(setup, counts.train)
        return setup, inputs.CACHED, (cached, targets)
    setup, size = inputs.placed(setup, inputs.RESIDENT), setup.network.image_size
    each = (size, size, 3)
    if not setup.network.varies and counts.train * 4 * math.prod(each) <= room:
        images = jax.ShapeDtypeStruct((counts.train, *each), jnp.float32)
        return setup, inputs.RESIDENT, (images, targets)
    return setup, inputs.STREAMED, (inputs.streamed_shape(setup), targets)


def _counts(experiment: Experiment) -> Counts:
    """Images of each part, from the task or from the data where it is here."""
    data, known = experiment.data, experiment.data.task.counts
    if known is not None:
        train = known["train"] + (data.trained_on == "trainval") * known["val"]
        if data.train_percent is not None:
            train = max(1, round(train * data.train_percent / 100))
        val = 0 if data.trained_on == "trainval" else known["val"]
        if data.held_out:
            val = train // HELD_OUT
            train -= val
        return Counts(train, val, data.test_examples or known["test"])
    validation = data.validation()
    return Counts(
        len(data.training()),
        0 if validation is None else len(validation),
        len(data.test()),
    )


def _total(stages: list[Stage]) -> float | None:
    each = [(p.calls, p.seconds) for stage in stages for p in stage.programs]
    if any(seconds is None for _, seconds in each):
        return None
    return sum(calls * seconds for calls, seconds in each if seconds is not None)
