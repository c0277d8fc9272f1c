"""Vision Transformer (Dosovitskiy et al., ICLR 2021, arXiv 2010.11929).

Pre-norm encoder with a CLS token and learned position embeddings, as in the original
release; the classification head is not part of the backbone.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.backbones import positions
from vpt_jax.backbones.layers import Attention, DropPath, LayerNorm, Mlp, PatchEmbed
from vpt_jax.types import Key, fold


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """The shape of a ViT; sizes in pixels and channels.

    Attributes:
        epsilon, activation: Of the norms and the MLPs, the same in a whole family.
        dropout, drop_path: Rates that the family is trained with when all of it is
            (`src/configs/vit_configs.py:35` and the builders of the public VPT code).
        resize: How the family stretches its position embeddings to another grid.
        adds_positions: Whether it has such embeddings, added to the tokens.
        corners: Whether `positions.linear` may do so, which keeps the corners; else
            points are the centres of patches.
    """

    patch: int
    width: int
    depth: int
    heads: int
    mlp_dim: int
    image_size: int = 224
    corners: bool = True

    epsilon: ClassVar[float] = 1e-6
    activation: ClassVar[str] = "gelu"
    dropout: ClassVar[float] = 0.1
    drop_path: ClassVar[float] = 0.0

    resize: ClassVar = staticmethod(positions.linear)
    adds_positions: ClassVar[bool] = True

    def stretch(self, grid: np.ndarray) -> np.ndarray:
        """Position embeddings of another grid, (g, g, D), for this one's."""
        keeps = self.corners or self.resize is not positions.linear
        return (self.resize if keeps else positions.bilinear)(grid, self.grid)

    @property
    def grid(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch

    def problem(self, image_size: int) -> str | None:
        """What is wrong with images of `image_size` px."""
        if image_size < self.patch or image_size % self.patch:
            return f"is not a multiple of the {self.patch} px patches"
        return None


class Block(nnx.Module):
    """x + attn(norm1(x)), then x + mlp(norm2(x))."""

    def __init__(self, config: ViTConfig, *, dtype, rngs: nnx.Rngs):
        self.width = width = config.width
        epsilon = config.epsilon
        self.norm1 = LayerNorm(width, epsilon=epsilon, dtype=dtype, rngs=rngs)
        self.attn = Attention(width, config.heads, dtype=dtype, rngs=rngs)
        self.norm2 = LayerNorm(width, epsilon=epsilon, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(
            width, config.mlp_dim, activation=config.activation, dtype=dtype, rngs=rngs
        )
        self.drop_path = DropPath()

    def __call__(
        self,
        x: Float[Array, "B N D"],
        read: slice = slice(None),
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> Float[Array, "B M D"]:
        """The tokens in `read` after this block."""
        branch = self.attn(self.norm1(x), read)
        x = x[:, read] + self.drop_path(branch, key=fold(key, 2), train=train)
        branch = self.mlp(self.norm2(x), key=key, train=train)
        return x + self.drop_path(branch, key=fold(key, 3), train=train)


class ViT(nnx.Module):
    """A backbone; its features are the CLS token after the final norm."""

    block = Block
    num_prefix = 1  # tokens before the image tokens: CLS
    reads = slice(0, 1)  # the tokens that `pool` takes
    has_statistics = False

    def __init__(self, config: ViTConfig, *, dtype=jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.dtype = dtype
        width, patch = config.width, (config.patch, config.patch)
        self.patch_embed = PatchEmbed(
            3, width, patch, patch, padding="VALID", dtype=dtype, rngs=rngs
        )
        self.cls = nnx.Param(jnp.zeros((1, 1, width)))
        self.pos_embed = nnx.data(None)
        if config.adds_positions:
            shape = (1, 1 + config.grid**2, width)
            self.pos_embed = nnx.Param(
                nnx.initializers.normal(0.02)(rngs.params(), shape)
            )
        self.dropout = nnx.Dropout(0.0)
        self.blocks = nnx.List(
            [self.block(config, dtype=dtype, rngs=rngs) for _ in range(config.depth)]
        )
        self.norm = LayerNorm(width, epsilon=config.epsilon, dtype=dtype, rngs=rngs)

    @property
    def width(self) -> int:
        """D of the features that `pool` returns."""
        return self.config.width

    @property
    def pieces(self) -> nnx.List:
        """The blocks."""
        return self.blocks

    def embed(
        self,
        images: Float[Array, "B h w c"],
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> Float[Array, "B N D"]:
        """Normalised images to [CLS, patches] with position embeddings."""
        patches = self.patch_embed(images.astype(self.dtype))  # B h/p w/p D
        batch, width = patches.shape[0], patches.shape[-1]
        patches = patches.reshape(batch, -1, width)
        cls = jnp.broadcast_to(self.cls[...].astype(self.dtype), (batch, 1, width))
        x = jnp.concatenate([cls, patches], axis=1)
        if self.pos_embed is not None:
            x = x + self.pos_embed[...].astype(self.dtype)
        return self.dropout(x, deterministic=not train, rngs=fold(key, 0))

    def pool(self, tokens: Float[Array, "B M D"]) -> Float[Array, "B D"]:
        """The mean of the tokens that were read, each after the final norm."""
        return self.norm(tokens).mean(axis=1)


SIZES = {"ti": (192, 12, 3), "s": (384, 12, 6), "b": (768, 12, 12)} | {
    "l": (1024, 24, 16),
    "h": (1280, 32, 16),
}
"""Width, depth and heads of the sizes that the families share."""


def sized(config: type, size: str, patch: int, **kwargs):
    """A configuration of one of `SIZES`, with MLPs of four times the width."""
    width, depth, heads = SIZES[size]
    return config(patch, width, depth, heads, 4 * width, **kwargs)


CONFIGS = {
    "vit_nano": ViTConfig(8, 96, 6, 3, 384, image_size=32),
    "vit_ti16": sized(ViTConfig, "ti", 16),
    "vit_s16": sized(ViTConfig, "s", 16),
    "vit_b8": sized(ViTConfig, "b", 8),
    "vit_b16": sized(ViTConfig, "b", 16),
    "vit_b32": sized(ViTConfig, "b", 32),
    "vit_l16": sized(ViTConfig, "l", 16),
    "vit_l32": sized(ViTConfig, "l", 32),
    "vit_h14": sized(ViTConfig, "h", 14),
    "vit_b8_augreg": sized(ViTConfig, "b", 8),
    "vit_b16_augreg": sized(ViTConfig, "b", 16),
    "vit_b32_augreg": sized(ViTConfig, "b", 32),
    "vit_l16_augreg": sized(ViTConfig, "l", 16),
    "deit_ti16": sized(ViTConfig, "ti", 16),
    "deit_s16": sized(ViTConfig, "s", 16),
    "deit_b16": sized(ViTConfig, "b", 16),
    "dino_s16": sized(ViTConfig, "s", 16),
    "dino_b16": sized(ViTConfig, "b", 16),
}
"""Names of the original release (Dosovitskiy et al., table 1; Ti, S and `_augreg`:
Steiner et al., arXiv 2106.10270), the embedded `vit_nano`, and the same network trained
on ImageNet-1k: DeiT (Touvron et al., arXiv 2012.12877), DINO (Caron et al., arXiv
2104.14294)."""
