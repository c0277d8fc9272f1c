"""One configuration for every command: `base` makes it, `resolve` completes it.

`base` leaves what depends on other choices as None; the user's overrides come in
between; `resolve` fills the rest and refuses what does not fit together.
"""

import dataclasses
import math
import types
import typing

import jax
from ml_collections import ConfigDict, config_dict

from vpt_jax import backbones, data, methods
from vpt_jax.data import preprocess
from vpt_jax.errors import UserError
from vpt_jax.training import losses, optim

PRECISIONS = ("float32", "bfloat16")
CACHES = ("device_gb", "host_gb", "images_gb")
SPLITS = {
    "train800val200": "trainval",
    "trainval": "trainval",
    "train800": "train",
    "train": "train",
}


def base(task: str, method: str = "vpt_deep", backbone: str = "vit_b16") -> ConfigDict:
    """A configuration with everything at its default for these three choices."""
    unset = config_dict.placeholder
    config = ConfigDict()
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
    config.method = ConfigDict({"name": method, **_method_options()})
    config.optim = ConfigDict(
        {
            "name": unset(str),  # see training.optim
            "lr": unset(float),  # peak, already scaled ...
            "base_lr": unset(float),  # ... or per 256 images
            "weight_decay": unset(float),
            "momentum": 0.9,
            "warmup_epochs": unset(int),
            "schedule": "epoch",  # or step
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
    return config


def arguments(arg: str, usage: str) -> list[str]:
    """The parts of a config file's argument, 'TASK[,METHOD[,BACKBONE]]'."""
    parts = arg.split(",") if arg else []
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise UserError(f"{arg!r} is not of the form {usage}")
    return parts


def resolve(config: ConfigDict, *, protocol: bool = False) -> ConfigDict:
    """A complete, valid copy; `config` itself is not changed.

    Args:
        config: From `base`, with the user's overrides.
        protocol: Whether a sweep asks, whose batches are the paper's.

    Raises:
        UserError: An unknown name, a value out of range, or options that contradict
            each other.
    """
    config = ConfigDict(config.copy_and_resolve_references())
    task = data.get_task(config.task, config.data.dir)
    given = {k: v for k, v in config.method.items() if k != "name" and v is not None}
    choices = methods.choose(config.method.name, given, task.prompt_lengths)
    name = "+".join(choice.name for choice in choices)
    config.method = ConfigDict({"name": name, **methods.options_of(choices)})
    recipe = choices[0].recipe
    exports = all(choice.recipe.exports_backbone for choice in choices)
    _default(config, "export_backbone", exports)

    shape = backbones.get_config(config.backbone.name, config.image_size)
    config.image_size = shape.image_size
    seen = methods.image_size(choices, config.image_size)
    problem = shape.problem(seen)
    if problem:
        raise UserError(
            f"method {name} makes images of {config.image_size} px into {seen} px, "
            f"which {problem} of {config.backbone.name}"
        )
    family = backbones.FAMILIES[type(shape)]
    for key in ("remat", "shard"):
        if config.backbone[key] and family.has_statistics:
            raise UserError(
                f"backbone.{key}=True is not possible with the BatchNorm of "
                f"{config.backbone.name}; leave it False"
            )
    default = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    _default(config, "precision", default)
    _one_of("precision", config.precision, PRECISIONS)
    _default(config.backbone, "dtype", config.precision)
    _one_of("backbone.dtype", config.backbone.dtype, PRECISIONS)
    _one_of("data.split", config.data.split, SPLITS)
    nano = config.backbone.name == "vit_nano"
    _default(config.data, "preset", "inception" if nano else task.preset)
    if config.data.preset != preprocess.BACKBONE:
        preprocess.get_preset(config.data.preset)
    _one_of("data.class_weights", config.data.class_weights, losses.CLASS_WEIGHTS)

    percent = config.data.train_percent
    if percent is not None and not 0 < percent <= 100:
        raise UserError(f"data.train_percent {percent} must be above 0, at most 100")
    for place in CACHES:
        if config.cache[place] is not None:
            _at_least(f"cache.{place}", config.cache[place], 0)
    _at_least("epochs", config.epochs, 1)
    _at_least("val_every", config.val_every, 0)
    batch_size = recipe.batch_size
    if protocol:
        batch_size = recipe.paper_batch_size(config.backbone.name, choices[0].config)
    _default(config, "batch_size", batch_size)
    _at_least("batch_size", config.batch_size, 1)
    config.seeds = tuple(config.seeds) or (config.seed,)
    for seed in config.seeds:
        if not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise UserError(f"seed {seed!r} must be a whole number from 0 to 2^32 - 1")
    if len(set(config.seeds)) < len(config.seeds):
        raise UserError(f"seeds {config.seeds} repeats a seed; each is one trial")
    _resolve_optim(config, recipe)
    return config


def to_dict(config: ConfigDict) -> dict:
    """Plain JSON types."""
    return {
        key: to_dict(value)
        if isinstance(value, ConfigDict)
        else list(value)
        if isinstance(value, tuple)
        else value
        for key, value in config.items()
    }


def _resolve_optim(config: ConfigDict, recipe: methods.Recipe) -> None:
    given = config.optim
    _default(given, "name", recipe.kind.optimizer)
    _one_of("optim.name", given.name, optim.OPTIMIZERS)
    _one_of("optim.schedule", given.schedule, optim.SCHEDULES)
    if given.lr is not None and given.base_lr is not None:
        raise UserError(
            f"optim.lr={given.lr} and optim.base_lr={given.base_lr} are both given; "
            "give lr (final) or base_lr (scaled by batch_size / 256)"
        )
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


def _method_options() -> dict:
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


def _default(config: ConfigDict, key: str, value) -> None:
    if config[key] is None:
        config[key] = value


def _one_of(key: str, value, known) -> None:
    if value not in known:
        raise UserError(f"{key} {value!r} is unknown; known: {', '.join(known)}")


def _at_least(key: str, value, least) -> None:
    if not least <= value < math.inf:
        raise UserError(f"{key} {value} must be a finite number of at least {least}")
