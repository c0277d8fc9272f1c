"""Ways of tuning: each file a config dataclass, `attach` and `group`.

    attach(model, config, rngs)               surgery on a plain `Model`
    group(path, variable, config, model)      'trainable', 'frozen' or 'stats', per leaf
    initialise(model, config, batches)        optional: from the training images
    image_size(config, image_size)            optional: what the backbone then sees

A new method is one file and one line in `METHODS`. Methods compose: 'prompt+lora'
attaches both in this order, and a leaf is trained if one of them says so. An option
belongs to every method that has it: equal names have equal meanings and defaults.
"""

import dataclasses
import re
from collections.abc import Iterable

from flax import nnx

from vpt_jax.errors import UserError
from vpt_jax.methods import (
    adapter,
    adaptformer,
    bias,
    cls,
    full,
    gated,
    layernorm,
    linear,
    lora,
    mlp,
    partial,
    prompt,
    prompt_add,
    prompt_below,
    prompt_pad,
    prompt_pixel,
    sidetune,
    ssf,
    vfpt,
)
from vpt_jax.model import Model
from vpt_jax.types import Path, Tree, path_name

GROUPS = ("stats", "trainable", "frozen")  # the first that any method names, wins


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a method is trained unless the user says otherwise.

    Attributes:
        module: The file with `attach` and `group`.
        config: Its dataclass of options.
        optimizer: 'sgd' or 'adamw' (public code, `src/configs` yamls).
        base_lr: Learning rate per 256 images, inside the public search grid.
        weight_decay: Coupled for SGD, decoupled for AdamW.
        warmup_epochs: Of 100.
        batch_size: Of the public base yamls' order of magnitude on one device.
    """

    module: object
    config: type
    optimizer: str
    base_lr: float
    weight_decay: float
    warmup_epochs: int = 10
    batch_size: int = 64


METHODS = {
    "prompt": Recipe(prompt, prompt.PromptConfig, "sgd", 1.0, 1e-3),
    "prompt_add": Recipe(prompt_add, prompt_add.AddConfig, "sgd", 1.0, 1e-3),
    "prompt_pixel": Recipe(prompt_pixel, prompt_pixel.PixelConfig, "sgd", 1.0, 1e-3),
    "prompt_pad": Recipe(prompt_pad, prompt_pad.PadConfig, "sgd", 1.0, 1e-3),
    "prompt_below": Recipe(prompt_below, prompt_below.BelowConfig, "sgd", 1.0, 1e-3),
    "gated": Recipe(gated, gated.GatedConfig, "sgd", 1.0, 1e-3),
    "vfpt": Recipe(vfpt, vfpt.VfptConfig, "sgd", 1.0, 1e-3),
    "cls": Recipe(cls, cls.ClsConfig, "sgd", 1.0, 1e-3),
    "linear": Recipe(linear, linear.LinearConfig, "sgd", 1.0, 1e-4),
    "mlp": Recipe(mlp, mlp.MlpConfig, "sgd", 0.25, 1e-4),
    "sidetune": Recipe(sidetune, sidetune.SidetuneConfig, "sgd", 0.1, 1e-4),
    "partial": Recipe(partial, partial.PartialConfig, "adamw", 1e-3, 1e-4),
    "bias": Recipe(bias, bias.BiasConfig, "adamw", 5e-3, 1e-4),
    "adapter": Recipe(adapter, adapter.AdapterConfig, "adamw", 5e-3, 1e-4),
    "full": Recipe(full, full.FullConfig, "adamw", 1e-3, 1e-4, warmup_epochs=5),
    "lora": Recipe(lora, lora.LoraConfig, "adamw", 4e-3, 1e-4),
    "ssf": Recipe(ssf, ssf.SsfConfig, "adamw", 5e-3, 1e-4),
    "adaptformer": Recipe(
        adaptformer, adaptformer.AdaptFormerConfig, "adamw", 4e-3, 1e-4
    ),
    "layernorm": Recipe(layernorm, layernorm.LayerNormConfig, "adamw", 5e-3, 1e-4),
}

ALIASES = {
    "vpt_deep": ("prompt", {"deep": True}),
    "vpt_shallow": ("prompt", {"deep": False}),
    "vpt_gated": ("gated", {}),
    "bitfit": ("bias", {}),
    "cls_reinit": ("cls", {"reinit": True}),
}

NUMBERED = {
    "partial": "blocks",
    "mlp": "mlp_layers",
    "adapter": "reduction",
    "lora": "rank",
}
"""The option behind the number of 'partial-2', 'mlp-3', 'adapter-64', 'lora-16'."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """A method and its options."""

    name: str
    config: object

    @property
    def module(self):
        """The file of the method."""
        return METHODS[self.name].module


def parse(name: str) -> tuple[tuple[str, dict], ...]:
    """'vpt-deep+lora-4' to (('prompt', {'deep': True}), ('lora', {'rank': 4}))."""
    parts = tuple(map(_parse_one, name.split("+")))
    names = [part for part, _ in parts]
    if len(set(names)) < len(names):
        raise UserError(f"method {name!r} names {max(names, key=names.count)!r} twice")
    return parts


def named(name: str) -> tuple[str, dict]:
    """'vpt-deep+lora-4' to ('prompt+lora', {'deep': True, 'rank': 4})."""
    parts = parse(name)
    options = {k: v for _, fixed in parts for k, v in fixed.items()}
    return "+".join(part for part, _ in parts), options


def choose(name: str, options: dict) -> tuple[Choice, ...]:
    """The methods of `name`, each with its own of the `options`.

    Raises:
        UserError: An unknown method, an option that none of them has, or a bad value.
    """
    parts = parse(name)
    known = {}
    for part, _ in parts:
        fields = dataclasses.fields(METHODS[part].config)
        known[part] = [field.name for field in fields]
    everything = [option for names in known.values() for option in names]
    unknown = [option for option in options if option not in everything]
    if unknown:
        raise UserError(
            f"method {name!r} has no option {', '.join(map(repr, unknown))}; "
            f"its options: {', '.join(everything) or 'none'}"
        )
    return tuple(
        Choice(
            part,
            METHODS[part].config(
                **fixed | {k: v for k, v in options.items() if k in known[part]}
            ),
        )
        for part, fixed in parts
    )


def options_of(choices: Iterable[Choice]) -> dict:
    """All options of the chosen methods in one mapping; `choose` reads it back."""
    return {k: v for c in choices for k, v in dataclasses.asdict(c.config).items()}


def image_size(choices: Iterable[Choice], size: int) -> int:
    """Side in pixels of what the backbone sees of an image of `size` pixels."""
    for choice in choices:
        if hasattr(choice.module, "image_size"):
            size = choice.module.image_size(choice.config, size)
    return size


def build(
    backbone: nnx.Module, head: nnx.Module, choices: Iterable[Choice], rngs: nnx.Rngs
) -> Model:
    """The plain backbone with a task's head and the methods attached."""
    model = Model(backbone, head)
    for choice in choices:
        choice.module.attach(model, choice.config, rngs)
    return model


def split(model: Model, choices: Iterable[Choice]) -> tuple[nnx.GraphDef, Tree, ...]:
    """Part a model into (graphdef, trainable, frozen, stats), plain arrays in each.

    Raises:
        ValueError: A method's `group` gave another answer for a leaf.
    """

    def answer(path: Path, variable) -> str:
        answers = set()
        for choice in choices:
            given = choice.module.group(path, variable, choice.config, model)
            if given not in GROUPS:
                raise ValueError(
                    f"{choice.name}.group gave {given!r} for {path_name(path)}; it "
                    f"must be one of {', '.join(GROUPS)}"
                )
            answers.add(given)
        return next(group for group in GROUPS if group in answers)

    def member(wanted: str):
        return lambda path, variable: answer(path, variable) == wanted

    graphdef, *states = nnx.split(model, *map(member, ("trainable", "frozen", "stats")))
    return graphdef, *map(nnx.as_pure, states)


def _parse_one(name: str) -> tuple[str, dict]:
    plain = name.replace("-", "_")
    if plain in METHODS:
        return plain, {}
    if plain in ALIASES:
        return ALIASES[plain]
    numbered = re.fullmatch(r"([a-z]+)_(\d+)", plain)
    if numbered and numbered[1] in NUMBERED:
        return numbered[1], {NUMBERED[numbered[1]]: int(numbered[2])}
    known = ", ".join([*ALIASES, *METHODS, *(f"{n}-NUMBER" for n in NUMBERED)])
    raise UserError(
        f"unknown method {name!r}; known: {known}, and several joined by '+'"
    )
