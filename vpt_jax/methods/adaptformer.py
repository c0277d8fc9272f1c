"""AdaptFormer (Chen et al., NeurIPS 2022, arXiv 2205.13535, equations 4 and 5).

mlp(x) -> mlp(x) + s * up(relu(down(x))),   x after the second LayerNorm
"""

import dataclasses

import jax
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.errors import UserError
from vpt_jax.methods.adapter import Bottleneck, blocks_with_mlp
from vpt_jax.model import Model
from vpt_jax.types import Backbone, Path, fold


@dataclasses.dataclass(frozen=True)
class AdaptFormerConfig:
    """Options of AdaptFormer; the paper's values.

    Attributes:
        bottleneck: Width between down and up.
        scale: s.
        dropout: Rate in the bottleneck.
    """

    bottleneck: int = 64
    scale: float = 0.1
    dropout: float = 0.1

    def __post_init__(self):
        if self.bottleneck < 1:
            raise UserError(f"method.bottleneck {self.bottleneck} must be at least 1")
        if not 0 <= self.dropout < 1:
            raise UserError(f"method.dropout {self.dropout} must be in [0, 1)")


class ParallelMlp(nnx.Module):
    """An MLP with a bottleneck beside it."""

    def __init__(self, base: Backbone, adaptformer: Bottleneck, scale: float):
        self.base = base
        self.adaptformer = adaptformer
        self.scale = scale

    def __call__(self, x: Float[Array, "B ... D"], *, key=None, train=False):
        beside = self.adaptformer(x, key=fold(key, 1), train=train)
        return self.base(x, key=fold(key, 0), train=train) + self.scale * beside


def attach(model: Model, config: AdaptFormerConfig, rngs: nnx.Rngs) -> None:
    """Put a bottleneck beside the MLP of every block."""
    for block in blocks_with_mlp(model, "adaptformer"):
        bottleneck = Bottleneck(
            block.width,
            config.bottleneck,
            jax.nn.relu,
            dropout=config.dropout,
            dtype=model.backbone.dtype,
            rngs=rngs,
        )
        block.mlp = ParallelMlp(block.mlp, bottleneck, config.scale)


def group(path: Path, variable: nnx.Variable, config: AdaptFormerConfig, model: Model):
    """Bottlenecks and the head are trained."""
    return "trainable" if path[0] == "head" or "adaptformer" in path else "frozen"
