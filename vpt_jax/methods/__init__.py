"""Ways of tuning: each file a config dataclass, `attach` and `group`.

`attach(model, config, rngs)` performs surgery on a plain `Model`; `group(path,
variable, config, model)` answers 'trainable', 'frozen' or 'stats' for every leaf.
A new method is one file and one line in `METHODS`.
"""

import dataclasses

from flax import nnx

from vpt_jax.errors import UserError
from vpt_jax.methods import full, linear, prompt
from vpt_jax.model import LinearHead, Model
from vpt_jax.types import Path, Tree, path_name


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
    "linear": Recipe(linear, linear.LinearConfig, "sgd", 1.0, 1e-4),
    "full": Recipe(full, full.FullConfig, "adamw", 1e-3, 1e-4, warmup_epochs=5),
}

ALIASES = {
    "vpt_deep": ("prompt", {"deep": True}),
    "vpt_shallow": ("prompt", {"deep": False}),
}


def canonical(name: str) -> tuple[str, dict]:
    """The method and fixed options behind a name; 'vpt-deep' equals 'vpt_deep'."""
    for candidate in (name, name.replace("-", "_")):
        if candidate in METHODS:
            return candidate, {}
        if candidate in ALIASES:
            return ALIASES[candidate]
    known = ", ".join([*ALIASES, *METHODS])
    raise UserError(f"unknown method {name!r}; known: {known}")


def make_config(name: str, options: dict):
    """The options dataclass of method `name`.

    Raises:
        UserError: An option that the method does not have.
    """
    config_type = METHODS[name].config
    known = [field.name for field in dataclasses.fields(config_type)]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise UserError(
            f"method {name!r} has no option {', '.join(map(repr, unknown))}; "
            f"its options: {', '.join(known) or 'none'}"
        )
    return config_type(**options)


def build(
    backbone: nnx.Module, num_classes: int, name: str, config, rngs: nnx.Rngs
) -> Model:
    """The plain backbone with a linear head and the method attached."""
    model = Model(backbone, LinearHead(backbone.width, num_classes, rngs=rngs))
    METHODS[name].module.attach(model, config, rngs)
    return model


def split(model: Model, name: str, config) -> tuple[nnx.GraphDef, Tree, Tree, Tree]:
    """Part a model into (graphdef, trainable, frozen, stats), plain arrays in each.

    Raises:
        ValueError: The method's `group` gave another answer for a leaf.
    """
    group = METHODS[name].module.group

    def member(wanted: str):
        def belongs(path: Path, variable) -> bool:
            answer = group(path, variable, config, model)
            if answer not in ("trainable", "frozen", "stats"):
                raise ValueError(
                    f"{name}.group gave {answer!r} for {path_name(path)}; it must be "
                    "'trainable', 'frozen' or 'stats'"
                )
            return answer == wanted

        return belongs

    graphdef, *states = nnx.split(model, *map(member, ("trainable", "frozen", "stats")))
    return graphdef, *map(nnx.as_pure, states)
