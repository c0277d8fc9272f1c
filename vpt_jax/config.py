"""One configuration for every command: `base` makes it, `resolve` makes a run of it.

`base` leaves what depends on other choices as None; the user's overrides come in
between; `resolve` fills the rest, refuses what does not fit together and looks up every
name. The ConfigDict ends here: what comes after takes the typed `Experiment`.
"""

import dataclasses
import math
import pathlib
import types
import typing

from ml_collections import ConfigDict, config_dict

from vpt_jax import backbones, data, methods, tuned
from vpt_jax import precision as precisions
from vpt_jax.checkpoints import zoo
from vpt_jax.data import preprocess
from vpt_jax.data.splits import TRAINED_ON, Splits
from vpt_jax.data.tasks import Task
from vpt_jax.errors import UserError
from vpt_jax.experiment import (
    BackboneChoice,
    Experiment,
    NetworkChoice,
    Optimization,
    Search,
)
from vpt_jax.sweeps import grids
from vpt_jax.training import optim
from vpt_jax.training.head_start import HEAD_STARTS
from vpt_jax.training.inputs import Limits
from vpt_jax.types import Config, literal

AUTO = "auto"  # optim.lr: search for one
CACHES = ("device_gb", "host_gb", "images_gb")


def base(
    task: str,
    method: str = "vpt_deep",
    backbone: str = "vit_b16",
    settings: str | None = None,
) -> Config:
    """A configuration with everything at its default for these three choices.

    `settings` is a table of what sweeps found, such as configs/tuned.csv: with it,
    learning rate, weight decay and options are those of its row.
    """
    unset = config_dict.placeholder
    config: Config = ConfigDict()
    config.task = task
    config.data = ConfigDict(
        {
            "dir": unset(str),  # where TFDS keeps its data; None: TFDS's own default
            "split": "train800val200",  # or train800, which scores val200 as well
            "preset": unset(str),  # preprocessing, see data.preprocess.PRESETS
            "test_examples": unset(int),  # score only the first so many test images
            "train_percent": unset(float),  # train on a random part, the same for all
            "class_weights": "none",  # or inv, inv_sqrt: against class imbalance
        }
    )
    config.backbone = ConfigDict(
        {
            "name": backbone,
            "checkpoint": unset(str),  # path, https://, gs://; None: the zoo's file
            "dtype": unset(str),  # what the frozen weights are kept in
            "scan": False,  # compile like blocks as one loop, for deep backbones
            "remat": False,  # compute blocks again in the backward pass: less memory
            "shard": False,  # each device keeps a part of the frozen weights (FSDP)
        }
    )
    config.method = ConfigDict({"name": method, **_all_options()})
    config.optim = ConfigDict(
        {
            "name": unset(str),  # see training.optim
            "lr": unset(object),  # peak, already scaled; auto: see runs.search ...
            "base_lr": unset(float),  # ... or per 256 images
            "weight_decay": unset(float),
            "momentum": 0.9,
            "warmup_epochs": unset(int),
            "schedule": "epoch",  # or step
            "head_start": "random",  # or fitted, see training.head_start
        }
    )
    config.epochs = 100
    config.batch_size = unset(int)
    config.image_size = unset(int)  # pixels
    config.seed = 42
    config.seeds = ()  # several trials at once; empty: config.seed alone
    config.val_every = 10  # epochs between two scores of the validation images
    config.precision = unset(str)  # of the computation
    # Write the backbone with what was tuned merged into it; None: full fine-tuning only
    config.export_backbone = unset(bool)
    # Methods that are tuned beside it, each as a run of its own with the same images
    # and epochs: 'linear', or 'linear optim.lr=0.5; lora-8 epochs=20'
    config.beside = ""
    # What --mode sweep tries; see docs/sweeps.md
    config.sweep = ConfigDict(
        {
            "grid": unset(str),  # of sweeps.grids.LEARNING_RATES; None: the method's
            "base_lrs": (),  # instead of the grid's, per 256 images
            "weight_decays": (),  # instead of the public code's four
            "over": "",  # more axes: 'length=1,5,10; dropout=0,0.1', or 'paper'
            "variants": (),  # 'label: key=value key=value', a sweep of its own each
            "ablation": "",  # what the variants show: the title of their figure
            "seeds": (42, 44, 82, 100, 800),  # of the winner's runs that are tested
            "trials": unset(int),  # at once on a device; None: as many as fit
            "halving": 0,  # n > 1: the best 1/n go on to n times as many epochs
            "shard": "0/1",  # i/n: this process takes every n-th unit from the i-th
        }
    )
    # Memory for cached outputs of the frozen first blocks, and for training images;
    # None: half of what is free. Images that do not fit are streamed.
    config.cache = ConfigDict({place: unset(float) for place in CACHES})
    if settings is not None:
        tuned.apply(config, pathlib.Path(settings))
    return config


def arguments(arg: str, file: str, first: str = "TASK") -> list[str]:
    """What `base` takes, of the argument 'TASK[,METHOD[,BACKBONE[,tuned]]]'.

    Args:
        arg: The argument of a config file.
        file: The config file; tuned.csv lies beside it.
        first: What its first word is.
    """
    parts, path = arg.split(",") if arg else [], pathlib.Path(file)
    if not 1 <= len(parts) <= 4 or not all(parts) or parts[3:] not in ([], ["tuned"]):
        usage = f"{path.parent.name}/{path.name}:{first}[,METHOD[,BACKBONE[,tuned]]]"
        raise UserError(f"{arg!r} is not of the form {usage}")
    return parts[:3] + [str(path.with_name("tuned.csv"))] * len(parts[3:])


def resolve(
    config: Config, platform: str | None = None, *, protocol: bool = False
) -> Experiment:
    """The run that a configuration stands for; `config` itself is not changed.

    Args:
        config: From `base`, with what the user has changed.
        platform: Of the devices that it is for; None: those that JAX has here.
        protocol: Whether a sweep asks, whose batches are the paper's.

    Raises:
        UserError: An unknown name, a value out of range, or options that contradict
            each other.
    """
    given, config = config, ConfigDict(config.copy_and_resolve_references())
    if config.beside and protocol:
        raise UserError(
            f"beside={config.beside!r} is for a single run; a sweep compares its "
            "variants: sweep.variants=('linear: method.name=linear', ...)"
        )
    task = data.get_task(config.task, config.data.dir)
    choices = _resolve_method(config, task)
    recipe = choices[0].recipe
    exports = all(choice.recipe.exports_backbone for choice in choices)
    _default(config, "export_backbone", exports)
    _default(config.data, "preset", _own_preset(config) or task.preset)
    network = _resolve_network(config, choices, task, platform)
    _one_of(
        "data.class_weights", config.data.class_weights, task.objective.CLASS_WEIGHTS
    )
    _at_least("epochs", config.epochs, 1)
    _at_least("val_every", config.val_every, 0)
    batch_size = recipe.batch_size
    if protocol:
        batch_size = recipe.paper_batch_size(config.backbone.name, choices[0].config)
    _default(config, "batch_size", batch_size)
    _at_least("batch_size", config.batch_size, 1)
    config.seeds = _resolve_seeds(config)
    parts = {
        "data": _resolve_data(config, task),
        "network": network,
        "optimizer": _resolve_optim(config, recipe),
        "limits": _resolve_limits(config),
        "search": _resolve_search(config, choices, task),
    }
    return Experiment(
        epochs=config.epochs,
        batch_size=config.batch_size,
        seeds=config.seeds,
        val_every=config.val_every,
        class_weights=config.data.class_weights,
        export_backbone=config.export_backbone,
        beside={
            name: resolve(other, platform) for name, other in _beside(given).items()
        },
        content=to_dict(config),
        **parts,
    )


def changed(config: Config, changes: dict) -> Config:
    """A copy with other values: {'batch_size': 32, 'backbone.remat': True}.

    Raises:
        UserError: No such key, or a value of another type.
    """
    own: Config = ConfigDict(config.copy_and_resolve_references())
    for key, value in changes.items():
        *groups, name = key.split(".")
        place: Config = own
        for group in groups:
            place = place[group] if group in place else ConfigDict()
        if name not in place:
            raise UserError(f"{key!r} is no key of the configuration")
        try:
            place[name] = value
        except TypeError as error:
            raise UserError(f"{key}={value!r}: {error}") from error
    return own


def changes_of(words: list[str]) -> dict | None:
    """{'epochs': 5} for ['epochs=5']; None where one of them is not 'key=value'."""
    pairs = [word.partition("=") for word in words]
    if not all(key and equals for key, equals, _ in pairs):
        return None
    return {key: literal(text) for key, _, text in pairs}


def restore_network(
    content: dict, num_classes: int, objective, checkpoint: str | None, precision: str
) -> NetworkChoice:
    """The network of a config.json, also where the task's images are not.

    Args:
        content: The file's.
        num_classes, objective: Of the task.
        checkpoint: Where the backbone is now; None: where the run found it.
        precision: To compute in.
    """
    config = restore(content)
    config.backbone.checkpoint = checkpoint or config.backbone.checkpoint
    config.precision = config.backbone.dtype = precision
    choices = methods.choose(config.method.name, _method_options(config))
    return _network(config, choices, num_classes, objective)


def restore(content: dict) -> Config:
    """A config.json as a configuration again."""
    config = base(content["task"])
    with config.unlocked():
        config.method = ConfigDict()
        for key, value in content.items():
            if isinstance(value, dict):
                for name, entry in value.items():
                    config[key][name] = _tuple(entry)
            else:
                config[key] = _tuple(value)
    return config


def _tuple(value):
    return tuple(value) if isinstance(value, list) else value


def _beside(config: Config) -> dict[str, Config]:
    """The configurations of `config.beside`, by the names of their methods."""
    found: dict[str, Config] = {}
    for part in filter(None, map(str.strip, config.beside.split(";"))):
        method, *rest = part.split()
        changes = changes_of(rest)
        if changes is None or "=" in method:
            raise UserError(
                f"beside={config.beside!r} is not of the form 'METHOD key=value; "
                "METHOD'"
            )
        if method in found:
            raise UserError(f"beside={config.beside!r} names {method} twice")
        # What suits one method need not suit another.
        plain = base(config.task, method, config.backbone.name)
        own: Config = ConfigDict(config.copy_and_resolve_references())
        own.beside, own.export_backbone = "", None
        own.method, own.optim = plain.method, plain.optim
        for key in ("momentum", "schedule"):
            own.optim[key] = config.optim[key]
        found[method] = changed(own, changes)
    return found


def _method_options(config: Config) -> dict:
    return {k: v for k, v in config.method.items() if k != "name" and v is not None}


def _resolve_method(config: Config, task: Task) -> tuple[methods.Choice, ...]:
    given = _method_options(config)
    choices = methods.choose(config.method.name, given, task.prompt_lengths)
    name = "+".join(choice.name for choice in choices)
    config.method = ConfigDict({"name": name, **methods.options_of(choices)})
    return choices


def _own_preset(config: Config) -> str | None:
    """What the embedded backbone was trained with."""
    return "inception" if config.backbone.name == "vit_nano" else None


def _resolve_network(
    config: Config,
    choices: tuple[methods.Choice, ...],
    task: Task,
    platform: str | None,
) -> NetworkChoice:
    shape = backbones.get_config(config.backbone.name, config.image_size)
    config.image_size = shape.image_size
    seen = methods.image_size(choices, config.image_size)
    problem = shape.problem(seen)
    if problem:
        raise UserError(
            f"method {config.method.name} makes images of {config.image_size} px into "
            f"{seen} px, which {problem} of {config.backbone.name}"
        )
    family = backbones.FAMILIES[type(shape)]
    for key in ("remat", "shard"):
        if config.backbone[key] and family.has_statistics:
            raise UserError(
                f"backbone.{key}=True is not possible with the BatchNorm of "
                f"{config.backbone.name}; leave it False"
            )
    _default(config, "precision", precisions.best(platform))
    precisions.check(config.precision, platform)
    _default(config.backbone, "dtype", config.precision)
    _one_of("backbone.dtype", config.backbone.dtype, precisions.PRECISIONS)
    return _network(config, choices, task.num_classes, task.objective)


def _network(config, choices, num_classes: int, objective) -> NetworkChoice:
    """From what is complete."""
    backbone = config.backbone
    return NetworkChoice(
        backbone=BackboneChoice(
            name=backbone.name,
            checkpoint=backbone.checkpoint,
            image_size=methods.image_size(choices, config.image_size),
            dtype=backbone.dtype,
            precision=config.precision,
            scan=backbone.scan,
            remat=backbone.remat,
            shard=backbone.shard,
        ),
        method=choices,
        objective=objective,
        num_classes=num_classes,
        image_size=config.image_size,
        preset=_preset(config.data.preset, backbone.name),
    )


def _preset(name: str, backbone: str) -> preprocess.Preset:
    if name != preprocess.BACKBONE:
        return preprocess.get_preset(name)
    entry = zoo.lookup(backbone)
    return preprocess.of_pretraining(
        entry.mean, entry.std, entry.resize, entry.image_size
    )


def _resolve_data(config: Config, task: Task) -> Splits:
    given = config.data
    _one_of("data.split", given.split, TRAINED_ON)
    percent = given.train_percent
    if percent is not None and not 0 < percent <= 100:
        raise UserError(f"data.train_percent {percent} must be above 0, at most 100")
    return Splits(
        task, given.dir, TRAINED_ON[given.split], percent, given.test_examples
    )


def _resolve_seeds(config: Config) -> tuple[int, ...]:
    seeds = tuple(config.seeds) or (config.seed,)
    for seed in seeds:
        if not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise UserError(f"seed {seed!r} must be a whole number from 0 to 2^32 - 1")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds {seeds} repeats a seed; each is one trial")
    return seeds


def _resolve_limits(config: Config) -> Limits:
    for place in CACHES:
        if config.cache[place] is not None:
            _at_least(f"cache.{place}", config.cache[place], 0)
    sizes = [config.cache[place] for place in CACHES]
    return Limits(*(None if gb is None else 1e9 * gb for gb in sizes))


def to_dict(config: Config) -> dict:
    """Plain JSON types."""
    return {
        key: to_dict(value)
        if isinstance(value, ConfigDict)
        else list(value)
        if isinstance(value, tuple)
        else value
        for key, value in config.items()
    }


def _resolve_optim(config: Config, recipe: methods.Recipe) -> Optimization:
    given = config.optim
    _default(given, "name", recipe.kind.optimizer)
    _one_of("optim.name", given.name, optim.OPTIMIZERS)
    _one_of("optim.schedule", given.schedule, optim.SCHEDULES)
    _one_of("optim.head_start", given.head_start, HEAD_STARTS)
    if given.lr is not None and given.base_lr is not None:
        raise UserError(
            f"optim.lr={given.lr} and optim.base_lr={given.base_lr} are both given; "
            "give lr (final) or base_lr (scaled by batch_size / 256)"
        )
    auto = given.lr == AUTO
    with config.ignore_type():  # it may have been a word, or a whole number
        given.lr = None if auto else _number(given.lr)
    if given.lr is None:
        _default(given, "base_lr", recipe.base_lr)
        given.lr = given.base_lr * config.batch_size / 256
    given.base_lr = given.lr * 256 / config.batch_size
    _default(given, "weight_decay", recipe.weight_decay)
    warmup = recipe.warmup_epochs * config.epochs // 100
    _default(given, "warmup_epochs", warmup)
    for key in ("lr", "weight_decay", "momentum", "warmup_epochs"):
        _at_least(f"optim.{key}", given[key], 0)
    if given.momentum >= 1:
        raise UserError(f"optim.momentum {given.momentum} must be less than 1")
    if given.warmup_epochs >= config.epochs:
        raise UserError(
            f"optim.warmup_epochs {given.warmup_epochs} must be less than epochs "
            f"{config.epochs}"
        )
    if given.name == "adamw_public" and given.weight_decay == 0:
        # Public code, `src/solver/optimizer.py:100-136`: AdamW without decay is SGD.
        given.name = "sgd"
    found = Optimization(**given.to_dict())
    if auto:  # the configuration says what was asked for
        with config.ignore_type():
            given.lr, given.base_lr = AUTO, None
    return found


def _number(lr) -> float | None:
    """A learning rate as it was given; the configuration takes anything."""
    if lr is None:
        return None
    if not isinstance(lr, (int, float)) or isinstance(lr, bool):
        raise UserError(f"optim.lr {lr!r} must be a number, or {AUTO} to find one")
    return float(lr)


def _resolve_search(
    config: Config, choices: tuple[methods.Choice, ...], task: Task
) -> Search | None:
    if config.optim.lr != AUTO:
        return None
    name = grids.default(choices, config.backbone.name, task.group)
    return Search(grids.learning_rates(name))


def _all_options() -> dict:
    """Every option of every method, unset: an override needs a key of known type."""
    options = {}
    for recipe in methods.METHODS.values():
        for field in dataclasses.fields(recipe.config):
            options[field.name] = config_dict.placeholder(_plain(field.type))
    return options


def _plain(annotation) -> type:
    """int for `int | None`."""
    if isinstance(annotation, types.UnionType):
        return next(a for a in typing.get_args(annotation) if a is not type(None))
    return annotation


def _default(config: Config, key: str, value) -> None:
    if config[key] is None:
        config[key] = value


def _one_of(key: str, value, known) -> None:
    if value not in known:
        raise UserError(f"{key} {value!r} is unknown; known: {', '.join(known)}")


def _at_least(key: str, value, least) -> None:
    if not least <= value < math.inf:
        raise UserError(f"{key} {value} must be a finite number of at least {least}")
