"""Vision tower of SigLIP (Zhai et al., arXiv 2303.15343).

A ViT without CLS token, whose features a learned probe gathers by attention
(`MAPHead` of google-research/big_vision); tanh GELU throughout.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.backbones import positions
from vpt_jax.backbones.layers import LayerNorm, Mlp, PatchEmbed, attend
from vpt_jax.backbones.vit import Block, ViTConfig, sized
from vpt_jax.types import Key, fold


@dataclasses.dataclass(frozen=True)
class SigLIPConfig(ViTConfig):
    """The shape of a vision tower."""

    activation: ClassVar[str] = "gelu_tanh"
    dropout: ClassVar[float] = 0.0
    # `resample_posemb` in `models/vit.py` of big_vision: `scipy.ndimage.zoom`, order 1.
    resize: ClassVar = staticmethod(positions.linear)


class AttentionPool(nnx.Module):
    """p = attention of a learned probe over the tokens; p + mlp(norm(p))."""

    def __init__(self, config: ViTConfig, heads: int, *, dtype, rngs: nnx.Rngs):
        width = config.width
        self.heads = heads
        self.probe = nnx.Param(
            nnx.initializers.xavier_uniform()(rngs.params(), (1, 1, width))
        )
        self.query = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.key = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.value = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.norm = LayerNorm(width, epsilon=config.epsilon, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(
            width, config.mlp_dim, activation=config.activation, dtype=dtype, rngs=rngs
        )

    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B D"]:
        probe = self.probe[...].astype(x.dtype)
        probe = jnp.broadcast_to(probe, (x.shape[0], *probe.shape[1:]))
        q, k, v = self.query(probe), self.key(x), self.value(x)
        q, k, v = (y.reshape(*y.shape[:2], self.heads, -1) for y in (q, k, v))
        p = self.out(attend(q, k, v).reshape(probe.shape))  # B 1 D
        return (p + self.mlp(self.norm(p)))[:, 0]


class SigLIP(nnx.Module):
    """A backbone; its features are what the probe gathers."""

    num_prefix = 0
    reads = slice(None)
    has_statistics = False

    def __init__(self, config: SigLIPConfig, *, dtype=jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.dtype = dtype
        width, patch = config.width, (config.patch, config.patch)
        self.patch_embed = PatchEmbed(
            3, width, patch, patch, padding="VALID", dtype=dtype, rngs=rngs
        )
        self.pos_embed = nnx.Param(
            nnx.initializers.normal(0.02)(rngs.params(), (1, config.grid**2, width))
        )
        self.dropout = nnx.Dropout(0.0)
        self.blocks = nnx.List(
            [Block(config, dtype=dtype, rngs=rngs) for _ in range(config.depth)]
        )
        self.norm = LayerNorm(width, epsilon=config.epsilon, dtype=dtype, rngs=rngs)
        self.head = AttentionPool(config, config.heads, dtype=dtype, rngs=rngs)

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
        """Normalised images to patches with position embeddings."""
        patches = self.patch_embed(images.astype(self.dtype))  # B h/p w/p D
        patches = patches.reshape(patches.shape[0], -1, self.width)
        x = patches + self.pos_embed[...].astype(self.dtype)
        return self.dropout(x, deterministic=not train, rngs=fold(key, 0))

    def pool(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B D"]:
        """What the probe gathers from the tokens after the final norm."""
        return self.head(self.norm(tokens))


CONFIGS = {
    "siglip_b16": sized(SigLIPConfig, "b", 16),
    "siglip_l16": sized(SigLIPConfig, "l", 16, image_size=256),
    "siglip_so400m14": SigLIPConfig(14, 1152, 27, 16, 4304),
    "siglip2_b16": sized(SigLIPConfig, "b", 16),
    "siglip2_l16": sized(SigLIPConfig, "l", 16, image_size=256),
    "siglip2_so400m14": SigLIPConfig(14, 1152, 27, 16, 4304),
}
"""SigLIP 2 (Tschannen et al., arXiv 2502.14786) is the same network."""
