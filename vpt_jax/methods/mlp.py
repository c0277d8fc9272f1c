"""MLP-k: a head of k linear layers on the frozen backbone (paper, section 4.1).

    k - 1 times: linear (D, D), ReLU, BatchNorm, dropout 0.1;  then linear (D, C)

Source: `src/models/mlp.py:38-57` of the public code, whose MLP_NUM is k - 1.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.backbones.layers import BatchNorm
from vpt_jax.errors import UserError
from vpt_jax.model import LinearHead, Model
from vpt_jax.types import Path, fold, widened


@dataclasses.dataclass(frozen=True)
class MlpConfig:
    """Options of the MLP head.

    Attributes:
        mlp_layers: k, its linear layers, the last one included.
        dropout: Rate after each hidden layer.
    """

    mlp_layers: int = 3
    dropout: float = 0.1

    def __post_init__(self):
        if self.mlp_layers < 2:
            raise UserError(
                f"method.mlp_layers {self.mlp_layers} must be at least 2; one layer "
                "is the method linear"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"method.dropout {self.dropout} must be in [0, 1)")


class Hidden(nnx.Module):
    """Linear, ReLU, BatchNorm, dropout."""

    def __init__(self, width: int, dropout: float, *, rngs: nnx.Rngs):
        self.linear = nnx.Linear(
            width,
            width,
            kernel_init=nnx.initializers.variance_scaling(2, "fan_out", "normal"),
            param_dtype=jnp.result_type(float),
            rngs=rngs,
        )
        self.norm = BatchNorm(width, dtype=jnp.result_type(float), rngs=rngs)
        self.norm.use_batch = True
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, x: Float[Array, "B D"], *, key, train, mask):
        x = self.norm(jax.nn.relu(self.linear(x)), mask=mask, train=train)
        return self.dropout(x, deterministic=not train, rngs=key)


class MlpHead(nnx.Module):
    """Features (B, D) to logits (B, C)."""

    def __init__(self, width: int, num_classes: int, config: MlpConfig, rngs: nnx.Rngs):
        self.hidden = nnx.List(
            [
                Hidden(width, config.dropout, rngs=rngs)
                for _ in range(config.mlp_layers - 1)
            ]
        )
        self.out = LinearHead(width, num_classes, rngs=rngs)

    def __call__(self, features, *, key=None, train=False, mask=None):
        x = widened(features)
        for n, layer in enumerate(self.hidden):
            x = layer(x, key=fold(key, n), train=train, mask=mask)
        return self.out(x)


def attach(model: Model, config: MlpConfig, rngs: nnx.Rngs) -> None:
    """Replace the head."""
    width, num_classes = model.head.in_features, model.head.out_features
    model.head = MlpHead(width, num_classes, config, rngs)


def not_dense(config: MlpConfig) -> str:
    """Why no head can read the tokens of the image."""
    return "its head reads one feature"


def group(path: Path, variable: nnx.Variable, config: MlpConfig, model: Model):
    """The head is trained, its BatchNorm statistics follow, all else is frozen."""
    if path[0] != "head":
        return "frozen"
    return "stats" if isinstance(variable, nnx.BatchStat) else "trainable"
