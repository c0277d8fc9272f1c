"""Ways of tuning: each file a config dataclass, `attach` and `group`.

    attach(model, config, rngs)               surgery on a plain `Model`
    group(path, variable, config, model)      'trainable', 'frozen' or 'stats', per leaf
    initialise(model, config, batches)        optional: from the training images
    image_size(config, image_size)            optional: what the backbone then sees
    not_dense(config)                         optional: why no head may read the tokens
                                              of the image with these options, or None

A new method is one file and one line in `recipes.py`. Methods compose: 'prompt+lora'
attaches both in this order, and a leaf is trained if one of them says so. An option
belongs to every method that has it: equal names have equal meanings and defaults.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from flax import nnx

from vpt_jax.errors import UserError
from vpt_jax.methods.recipes import METHODS, Lengths, Recipe
from vpt_jax.model import Model
from vpt_jax.types import Backbone, Path, Tree, path_name

GROUPS = ("stats", "trainable", "frozen")  # the first that any method names, wins


@dataclasses.dataclass(frozen=True)
class Choice:
    """A method and its options."""

    name: str
    config: Any

    @property
    def recipe(self) -> Recipe:
        """The row of the method."""
        return METHODS[self.name]

    @property
    def module(self) -> ModuleType:
        """The file of the method."""
        return self.recipe.module


def parse(name: str) -> tuple[tuple[str, Mapping], ...]:
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


def choose(
    name: str, options: Mapping, prompt_lengths: Lengths = (10, 10)
) -> tuple[Choice, ...]:
    """The methods of `name`, each with its own of the `options`.

    An option of several methods has one value: the given one, else that of the first
    whose recipe has a rule for it.

    Args:
        name: As `parse` reads it.
        options: Those that were given.
        prompt_lengths: The task's, where `options` have no length.

    Raises:
        UserError: An unknown method, an option that none of them has, or a bad value.
    """
    parts = parse(name)
    known = {}
    for part, _ in parts:
        fields = dataclasses.fields(METHODS[part].config)
        known[part] = {field.name: field.type for field in fields}
    everything = [option for names in known.values() for option in names]
    unknown = [option for option in options if option not in everything]
    if unknown:
        raise UserError(
            f"method {name!r} has no option {', '.join(map(repr, unknown))}; "
            f"its options: {', '.join(everything) or 'none'}"
        )

    def own(part: str, values: Mapping) -> dict:
        fields = known[part]
        return {k: _number(v, fields[k]) for k, v in values.items() if k in fields}

    usual = {}
    for part, fixed in reversed(parts):
        rule = METHODS[part].defaults({**fixed, **options}, prompt_lengths)
        usual |= own(part, rule)
    return tuple(
        Choice(part, METHODS[part].config(**own(part, {**usual, **fixed, **options})))
        for part, fixed in parts
    )


def options_of(choices: Iterable[Choice]) -> dict:
    """All options of the chosen methods in one mapping; `choose` reads it back."""
    return {k: v for c in choices for k, v in dataclasses.asdict(c.config).items()}


def label(name: str, options: Mapping, backbone: str = "") -> str:
    """The name in reports: 'prompt' with its options is 'vpt-deep', 'mlp' is 'mlp-3'.

    Args:
        name: Of methods joined by '+', as a resolved configuration has it.
        options: Of all of them.
        backbone: Its name.
    """
    return "+".join(_label_one(part, options, backbone) for part in name.split("+"))


def image_size(choices: Iterable[Choice], size: int) -> int:
    """Side in pixels of what the backbone sees of an image of `size` pixels."""
    for choice in choices:
        if hasattr(choice.module, "image_size"):
            size = choice.module.image_size(choice.config, size)
    return size


def check_dense(choices: Iterable[Choice]) -> None:
    """Refuse methods that leave no tokens of the image for a `DenseHead` to read.

    Raises:
        UserError: One of them is such a method, or has such an option.
    """
    for choice in choices:
        why = getattr(choice.module, "not_dense", lambda config: None)(choice.config)
        if why:
            raise UserError(f"method {choice.name} gives an image one answer: {why}")


def build(
    backbone: Backbone, head: nnx.Module, choices: Iterable[Choice], rngs: nnx.Rngs
) -> Model:
    """The plain backbone with a task's head and the methods attached."""
    model = Model(backbone, head)
    for choice in choices:
        choice.module.attach(model, choice.config, rngs)
    return model


def split(
    model: Model, choices: Iterable[Choice]
) -> tuple[nnx.GraphDef, Tree, Tree, Tree]:
    """Part a model into (graphdef, trainable, frozen, stats), plain arrays in each.

    Raises:
        ValueError: A method's `group` gave another answer for a leaf.
    """

    def answer(path: Path, variable) -> str:
        if model.unread(path):
            return "frozen"
        if path[0] == "head" and isinstance(variable, nnx.BatchStat):
            return "stats"
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


def _parse_one(name: str) -> tuple[str, Mapping]:
    plain = name.replace("-", "_")
    if plain in METHODS:
        return plain, {}
    aliases = {
        alias: (method, fixed)
        for method, recipe in METHODS.items()
        for alias, fixed in recipe.aliases.items()
    }
    if plain in aliases:
        return aliases[plain]
    numbers = {m: recipe.number for m, recipe in METHODS.items() if recipe.number}
    numbered = re.fullmatch(r"([a-z]+)_(\d+)", plain)
    if numbered and numbered[1] in numbers:
        return numbered[1], {numbers[numbered[1]]: int(numbered[2])}
    known = ", ".join([*aliases, *METHODS, *(f"{n}-NUMBER" for n in numbers)])
    raise UserError(
        f"unknown method {name!r}; known: {known}, and several joined by '+'"
    )


def _number(value, declared):
    """A value of an option; 0 is 0.0 where a fraction is asked for."""
    whole = type(value) is int and declared in (float, float | None)
    return float(value) if whole else value


def _label_one(part: str, options: Mapping, backbone: str) -> str:
    recipe = METHODS[part]
    if recipe.label:
        return recipe.label(options, backbone)
    return f"{part}-{options[recipe.number]}" if recipe.number else part
