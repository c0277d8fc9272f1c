"""Adapters after the MLP of every block (Pfeiffer et al., EACL 2021, arXiv 2005.00247).

    y = mlp(x) -> y + up(gelu(down(y))),   down: D to D / r, up: back

Source: `src/models/vit_adapter/adapter_block.py` of the public code (paper, section 4.1
"Adapter"). Deviation: there all weights start at zero, so that no gradient but that of
the last bias ever differs from zero; here only `up` does (`dead_start` for theirs).
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.backbones.layers import gelu
from vpt_jax.errors import UserError
from vpt_jax.model import Model
from vpt_jax.types import Backbone, Path, fold


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """Options of adapters.

    Attributes:
        reduction: r, the width over that of the bottleneck.
        dead_start: Start with every weight zero, as the public code does.
    """

    reduction: int = 8
    dead_start: bool = False

    def __post_init__(self):
        if self.reduction < 1:
            raise UserError(f"method.reduction {self.reduction} must be at least 1")


class Bottleneck(nnx.Module):
    """up(activation(down(x))), dropout in between; zero at the start."""

    def __init__(
        self,
        width: int,
        hidden: int,
        activation: Callable,
        *,
        dropout: float = 0.0,
        dead: bool = False,
        dtype,
        rngs: nnx.Rngs,
    ):
        zeros = nnx.initializers.zeros
        start = zeros if dead else nnx.initializers.lecun_normal()
        common = {"dtype": dtype, "param_dtype": jnp.result_type(float), "rngs": rngs}
        self.down = nnx.Linear(width, hidden, kernel_init=start, **common)
        self.up = nnx.Linear(hidden, width, kernel_init=zeros, **common)
        self.activation = activation
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, x: Float[Array, "B ... D"], *, key=None, train=False):
        hidden = self.activation(self.down(x))
        hidden = self.dropout(hidden, deterministic=not train, rngs=key)
        return self.up(hidden)


class AdaptedMlp(nnx.Module):
    """An MLP with an adapter on its output."""

    def __init__(self, base: Backbone, adapter: Bottleneck):
        self.base = base
        self.adapter = adapter

    def __call__(self, x: Float[Array, "B ... D"], *, key=None, train=False):
        y = self.base(x, key=fold(key, 0), train=train)
        return y + self.adapter(y, key=fold(key, 1), train=train)


def blocks_with_mlp(model: Model, method: str) -> list[Backbone]:
    """The blocks, each of which must offer its `mlp`."""
    blocks = list(model.backbone.blocks)
    if not all(hasattr(block, "mlp") for block in blocks):
        raise UserError(
            f"method {method} needs a backbone whose blocks have an MLP; "
            f"{type(blocks[0]).__name__} has none"
        )
    return blocks


def attach(model: Model, config: AdapterConfig, rngs: nnx.Rngs) -> None:
    """Wrap the MLP of every block."""
    for block in blocks_with_mlp(model, "adapter"):
        width = block.width
        if width % config.reduction:
            raise UserError(
                f"method.reduction {config.reduction} does not divide the width {width}"
            )
        bottleneck = Bottleneck(
            width,
            width // config.reduction,
            gelu,
            dead=config.dead_start,
            dtype=model.backbone.dtype,
            rngs=rngs,
        )
        block.mlp = AdaptedMlp(block.mlp, bottleneck)


def group(path: Path, variable: nnx.Variable, config: AdapterConfig, model: Model):
    """Adapters and the head are trained."""
    return "trainable" if path[0] == "head" or "adapter" in path else "frozen"
