"""Normalisation tuning: scales and biases of every LayerNorm.

Basu et al., "Strong Baselines for Parameter-Efficient Few-Shot Fine-Tuning" (AAAI
2024, arXiv 2304.01917), where it is named LN-Tune.
"""

import dataclasses

from flax import nnx

from vpt_jax.errors import UserError
from vpt_jax.model import Model, owner
from vpt_jax.types import Path


@dataclasses.dataclass(frozen=True)
class LayerNormConfig:
    """LayerNorm tuning has no options."""


def attach(model: Model, config: LayerNormConfig, rngs: nnx.Rngs) -> None:
    """Nothing to add; refuses a backbone without LayerNorm."""
    modules = (module for _, module in nnx.iter_modules(model.backbone))
    if not any(isinstance(module, nnx.LayerNorm) for module in modules):
        raise UserError(
            f"method layernorm finds no LayerNorm in {type(model.backbone).__name__}; "
            "choose bias, which trains the shifts of its BatchNorms"
        )


def group(path: Path, variable: nnx.Variable, config: LayerNormConfig, model: Model):
    """What a LayerNorm owns and the head are trained."""
    trained = path[0] == "head" or isinstance(owner(model, path), nnx.LayerNorm)
    return "trainable" if trained else "frozen"
