"""Linear probing: only the head is trained (paper, section 4.1 "Linear")."""

import dataclasses

from flax import nnx

from vpt_jax.model import Model
from vpt_jax.types import Path


@dataclasses.dataclass(frozen=True)
class LinearConfig:
    """Linear probing has no options."""


def attach(model: Model, config: LinearConfig, rngs: nnx.Rngs) -> None:
    """Nothing to add: the default head is a linear layer."""


def group(path: Path, variable: nnx.Variable, config: LinearConfig, model: Model):
    """The head is trained, all else is frozen."""
    return "trainable" if path[0] == "head" else "frozen"
