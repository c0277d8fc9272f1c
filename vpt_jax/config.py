"""The configuration of every command: `base` makes it, the user's changes come next.

`base` leaves what depends on other choices as None, and `resolution.resolve` fills it.
The ConfigDict ends there: what comes after takes the typed `Experiment`.
"""

import dataclasses
import pathlib
import types
import typing

from ml_collections import ConfigDict, config_dict

from vpt_jax import methods, tuned
from vpt_jax.errors import UserError
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
            "ignored": (),  # numbers in masks of pixels without a class, beside 255
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
            "schedule": "epoch",  # or step, poly: see training.optim
            "min_lr": 0.0,  # where poly ends
            "head_multiplier": 1.0,  # of the learning rate of the head
            "head_start": "random",  # or fitted, see training.head_start
        }
    )
    config.head = unset(str)  # of the objective's HEADS; None: the first of them
    # How an image with a class for each pixel is seen, see data.windows
    config.inference = ConfigDict({"mode": "slide", "several": False})
    config.epochs = 100
    config.batch_size = unset(int)
    config.image_size = unset(int)  # pixels
    config.seed = 42
    config.seeds = ()  # several trials at once; empty: config.seed alone
    config.val_every = 10  # epochs between two scores of the validation images
    config.precision = unset(str)  # of the computation
    # Write the backbone with what was tuned merged into it; None: full fine-tuning only
    config.export_backbone = unset(bool)
    # Write what PyTorch needs beside the export, see docs/elsewhere.md
    config.export_torch = False
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
