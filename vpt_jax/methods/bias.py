"""Bias tuning: the biases of the backbone (Zaken et al., BitFit, arXiv 2106.10199).

Paper, section 4.1 "Bias" (there after TinyTL, Cai et al., arXiv 2007.11622).
"""

import dataclasses

from flax import nnx

from vpt_jax.model import Model
from vpt_jax.types import Path


@dataclasses.dataclass(frozen=True)
class BiasConfig:
    """Options of bias tuning.

    Attributes:
        position_bias: Train Swin's tables of relative position biases too, as the
            public code does: it takes every name that contains "bias".
    """

    position_bias: bool = False


def attach(model: Model, config: BiasConfig, rngs: nnx.Rngs) -> None:
    """Nothing to add."""


def group(path: Path, variable: nnx.Variable, config: BiasConfig, model: Model):
    """Every leaf named exactly 'bias' and the head are trained."""
    names = {"bias", "position_bias"} if config.position_bias else {"bias"}
    return "trainable" if path[0] == "head" or path[-1] in names else "frozen"
