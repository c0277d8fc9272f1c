"""From a configuration to the run that it stands for.

`resolve` fills what was left open, refuses what does not fit together and looks up
every name, once.
"""

import math

from ml_collections import ConfigDict

from vpt_jax import backbones, data, methods
from vpt_jax import precision as precisions
from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.checkpoints import zoo
from vpt_jax.config import AUTO, CACHES, base, changed, changes_of, restore, to_dict
from vpt_jax.data import preprocess, windows
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
from vpt_jax.types import Config


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
    if config.export_torch and protocol:
        raise UserError(
            "export_torch=True is for a single run; after a sweep, --mode export "
            "--format torch writes its winner"
        )
    task = data.get_task(config.task, config.data.dir, tuple(config.data.ignored))
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
        own.beside, own.export_backbone, own.export_torch = "", None, False
        own.method, own.optim = plain.method, plain.optim
        for key in ("momentum", "schedule", "min_lr"):
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
    _default(config, "head", next(iter(task.objective.HEADS)))
    _one_of("head", config.head, task.objective.HEADS)
    _one_of("inference.mode", config.inference.mode, windows.MODES)
    if task.objective.DENSE:
        methods.check_dense(choices)
        if not isinstance(shape, ViTConfig):
            raise UserError(
                f"task {task.name} gives each pixel a class, which needs a ViT; "
                f"{config.backbone.name} is none"
            )
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
        head=config.head or next(iter(objective.HEADS)),
        num_classes=num_classes,
        image_size=config.image_size,
        inference=windows.Inference(**config.inference.to_dict()),
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
    of_optim = ("lr", "weight_decay", "momentum", "warmup_epochs", "min_lr")
    for key in (*of_optim, "head_multiplier"):
        _at_least(f"optim.{key}", given[key], 0)
    if given.momentum >= 1:
        raise UserError(f"optim.momentum {given.momentum} must be less than 1")
    if given.warmup_epochs >= config.epochs:
        raise UserError(
            f"optim.warmup_epochs {given.warmup_epochs} must be less than epochs "
            f"{config.epochs}"
        )
    if given.name == "adamw_public" and given.head_multiplier != 1:
        raise UserError("optim.head_multiplier needs optim.name sgd or adamw")
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


def _default(config: Config, key: str, value) -> None:
    if config[key] is None:
        config[key] = value


def _one_of(key: str, value, known) -> None:
    if value not in known:
        raise UserError(f"{key} {value!r} is unknown; known: {', '.join(known)}")


def _at_least(key: str, value, least) -> None:
    if not least <= value < math.inf:
        raise UserError(f"{key} {value} must be a finite number of at least {least}")
