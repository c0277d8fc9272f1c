"""A sweep as data: jobs, their units, and the trials of each, all fixed beforehand.

job     one task (and variant) with one winner and one result, a folder
unit    the trials that one compiled program trains: same method options, optimizer
        and batch size; learning rate, weight decay and seed differ
cohort  T trials of a unit, trained at once: they are done together or not

Here a sweep is still a configuration, changed point by point and then resolved.
"""

import copy
import dataclasses
import itertools
import json
import math

from vpt_jax import config as configs
from vpt_jax import data, resolution
from vpt_jax.errors import UserError
from vpt_jax.experiment import Experiment
from vpt_jax.runs.train import Trial
from vpt_jax.sweeps import grids
from vpt_jax.sweeps.selection import Selection
from vpt_jax.types import Config, literal

TRACED = ("lr", "base_lr", "weight_decay")  # of config.optim: may differ in a unit
MIN_RUNG_EPOCHS = 5


@dataclasses.dataclass(frozen=True)
class Job:
    """One winner to be found.

    Attributes:
        name: Of its folder below the workdir; '' for the workdir itself.
        config: With a single task and without variants; not resolved.
        variant: Label of its variant; '' without variants, and of one that is no more
            than a method under its own name: it is compared as a method.
        position: Of the variant among all.
    """

    name: str
    config: Config
    variant: str = ""
    position: int = 0


@dataclasses.dataclass(frozen=True)
class GridTrial(Trial):
    """One run of the grid.

    Attributes:
        base_lr: As the grid names its learning rate, per 256 images.
    """

    base_lr: float


@dataclasses.dataclass(frozen=True)
class Unit:
    """Trials that share a compiled program.

    Attributes:
        name: Of its folder.
        label: What sets it apart from the job's other units, such as 'length=5'.
        experiment: Its lr and weight decay are those of the first trial.
        trials: In the order of the grid.
    """

    name: str
    label: str
    experiment: Experiment
    trials: tuple[GridTrial, ...]

    def as_json(self) -> dict:
        """For the plan file."""
        return {
            "unit": self.name,
            "label": self.label,
            "trials": [dataclasses.asdict(trial) for trial in self.trials],
        }


def jobs(config: Config) -> list[Job]:
    """Every task of `config.task` (a name or a group) with every variant."""
    tasks = data.task_names(config.task)
    variants = [_variant(text) for text in config.sweep.variants] or [("", {})]
    labels = [label for label, _ in variants]
    if len(set(labels)) < len(labels):
        raise UserError(f"sweep.variants repeats a label: {', '.join(labels)}")
    result = []
    for task, (position, (label, changes)) in itertools.product(
        tasks, enumerate(variants)
    ):
        own = configs.changed(config, {"task": task, "sweep.variants": (), **changes})
        parts = [task] * (len(tasks) > 1) + [_folder(label)] * bool(label)
        method = changes.get("method.name") == label and not config.sweep.ablation
        result.append(Job("/".join(parts), own, "" if method else label, position))
    return result


def units(config: Config, platform: str | None = None) -> list[Unit]:
    """The grid of a job, apart by what needs a compiled program of its own.

    `platform` is that of the devices it is for, as in `resolution.resolve`.
    """
    sweep, plain = config.sweep, resolution.resolve(config, platform, protocol=True)
    if plain.search is not None:
        raise UserError(
            f"optim.lr={configs.AUTO} is for a single run; a sweep tries a grid of its "
            "own: leave it out"
        )
    if sweep.trials is not None and sweep.trials < 1:
        raise UserError(f"sweep.trials {sweep.trials} must be at least 1")
    choices, backbone = plain.network.method, plain.network.backbone.name
    name = sweep.grid or grids.default(choices, backbone, plain.data.task.group)
    base_lrs = tuple(sweep.base_lrs) or grids.learning_rates(name)
    decays = tuple(sweep.weight_decays) or grids.WEIGHT_DECAYS
    for key, values in (("base_lrs", base_lrs), ("weight_decays", decays)):
        bad = [x for x in values if not 0 <= x < math.inf]
        if bad or len(set(values)) < len(values):
            raise UserError(f"sweep.{key} {values}: finite, at least 0, none twice")

    over = sweep.over
    if over == "paper":
        over = grids.static_axes(choices, backbone)
    result = []
    for label, changes in _combinations(over):
        alike: dict[str, tuple[Experiment, list[GridTrial]]] = {}
        for base_lr, decay in itertools.product(base_lrs, decays):
            point = _at(config, changes, float(base_lr), float(decay), platform)
            _, trials = alike.setdefault(_static(point), (point, []))
            trials += [
                GridTrial(point.optimizer.lr, float(decay), seed, float(base_lr))
                for seed in point.seeds
            ]
        for point, trials in alike.values():
            apart = f"optimizer={point.optimizer.name}" if len(alike) > 1 else ""
            full = " ".join(part for part in (label, apart) if part)
            result.append(Unit(f"{len(result):02d}", full, point, tuple(trials)))
    return result


def rungs(
    epochs: int, halving: int, num_trials: int, least: int = MIN_RUNG_EPOCHS
) -> list[tuple[int, int]]:
    """(epochs, trials) of each round of successive halving; one round without it.

    Args:
        epochs: Of the last round.
        halving: The divisor; 0: one round.
        num_trials: Of the first round.
        least: Epochs of any round.
    """
    if halving and (not isinstance(halving, int) or halving < 2):
        raise UserError(f"sweep.halving {halving} must be 0 (off), 2 or more")
    result = [(epochs, num_trials)]
    if not halving:
        return result
    rounds = 0
    while (
        num_trials > halving ** (rounds + 1)
        and epochs // halving ** (rounds + 1) >= least
    ):
        rounds += 1
    return [
        (epochs // halving ** (rounds - k), math.ceil(num_trials / halving**k))
        for k in range(rounds + 1)
    ]


def cohort_size(num_trials: int, fitting: int, devices: int) -> int:
    """Trials of a cohort: at most as many as fit, in cohorts of about the same size.

    A multiple of the devices where there are enough trials, so that none is idle.
    """
    unit = devices if min(num_trials, fitting) >= devices else 1
    fitting = fitting // unit * unit
    return _ceil(_ceil(num_trials, _ceil(num_trials, fitting)), unit) * unit


def cohorts(positions: list[int], size: int) -> list[list[int]]:
    """Positions in cohorts, the last one possibly smaller."""
    return [positions[k : k + size] for k in range(0, len(positions), size)]


def shard(text: str) -> tuple[int, int]:
    """(i, n) of 'i/n'."""
    i, slash, n = str(text).partition("/")
    if not (slash and i.isdigit() and n.isdigit() and int(i) < int(n)):
        raise UserError(
            f"sweep.shard {text!r} must be i/n with i from 0 to n - 1, such as 0/4"
        )
    return int(i), int(n)


def described(config: Config) -> dict:
    """What a job's folder belongs to: its configuration but for who runs it where."""
    content = json.loads(json.dumps(configs.to_dict(config)))
    del content["sweep"]["shard"], content["sweep"]["trials"], content["cache"]
    del content["data"]["dir"]
    return content


def final(unit: Unit, chosen: Selection, seeds: tuple[int, ...]) -> Experiment:
    """The winner's runs, from the experiment of its unit."""
    config = configs.restore(unit.experiment.content)
    config.optim.lr, config.optim.base_lr = chosen.lr, None
    config.optim.weight_decay = chosen.weight_decay
    config.seeds, config.sweep = seeds, configs.base(config.task).sweep
    config.data.split = final_split(unit.experiment)
    return resolution.resolve(config)


def final_split(experiment: Experiment) -> str:
    """What the winner is trained on, as `config.data.split` names it.

    FGVC has a training split of its own; VTAB retrains on all 1,000 images.
    """
    fgvc = experiment.data.task.group == "fgvc"
    return "train800" if fgvc else "train800val200"


def _at(
    config: Config, changes: dict, base_lr: float, decay: float, platform: str | None
) -> Experiment:
    own = configs.changed(
        config, {f"method.{key}": value for key, value in changes.items()}
    )
    own.optim.lr, own.optim.base_lr, own.optim.weight_decay = None, base_lr, decay
    return resolution.resolve(own, platform, protocol=True)


def _static(experiment: Experiment) -> str:
    """Equal for experiments that one compiled program serves."""
    content = copy.deepcopy(experiment.content)
    for key in TRACED:
        del content["optim"][key]
    return json.dumps(content, sort_keys=True)


def _combinations(over: str) -> list[tuple[str, dict]]:
    """'length=1,5; dropout=0' to every choice with its label."""
    axes = []
    for axis in filter(None, map(str.strip, over.split(";"))):
        key, equals, values = axis.partition("=")
        if not (key and equals and values):
            raise UserError(
                f"sweep.over {over!r} is not of the form 'option=value,value; ...'"
            )
        axes.append([(key.strip(), value.strip()) for value in values.split(",")])
    return [
        (
            " ".join("=".join(pair) for pair in chosen),
            {k: literal(v) for k, v in chosen},
        )
        for chosen in itertools.product(*axes)
    ]


def _variant(text: str) -> tuple[str, dict]:
    """'shallow: method.name=vpt_shallow method.length=5' to (label, changes)."""
    label, colon, rest = text.partition(":")
    changes = configs.changes_of(rest.split())
    if not label or not colon or changes is None:
        raise UserError(
            f"sweep.variants: {text!r} is not of the form 'label: key=value key=value'"
        )
    return label.strip(), changes


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _folder(label: str) -> str:
    """'deep = 5' to 'deep-5': no blanks in paths."""
    kept = "".join(c if c.isalnum() or c in "-._" else " " for c in label)
    return "-".join(kept.split())
