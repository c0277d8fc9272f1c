"""ViT of DINOv2 (Oquab et al., arXiv 2304.07193; registers: arXiv 2309.16588).

tokens: [CLS, R registers, patches]; registers have no position embedding
each residual branch is multiplied by a learned scale per channel
ViT-g: SwiGLU in place of the MLP
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.backbones import positions
from vpt_jax.backbones.vit import Block, ViT, ViTConfig, sized
from vpt_jax.types import Key, fold


@dataclasses.dataclass(frozen=True)
class DINOv2Config(ViTConfig):
    """The shape of a DINOv2 encoder.

    Attributes:
        registers: R, register tokens.
        swiglu: SwiGLU of `mlp_dim` gated channels in place of the MLP.
    """

    dropout: ClassVar[float] = 0.0

    image_size: int = 518
    registers: int = 0
    swiglu: bool = False

    def resize(self, grid: np.ndarray, new: int) -> np.ndarray:
        """Position embeddings (g, g, D) for new x new patches.

        The release antialiases where it has registers, and stretches by (new + 0.1) / g
        where it has none (`hub/backbones.py:27-28,107-108` and
        `models/vision_transformer.py:180-212` of facebookresearch/dinov2).
        """
        if self.registers:
            return positions.antialiased(grid, new)
        return positions.cubic(grid, new, shift=0.1)


class SwiGLU(nnx.Module):
    """fc2(silu(a) b) with a, b the halves of fc1(x) (Shazeer, arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int, *, dtype, rngs: nnx.Rngs):
        self.fc1 = nnx.Linear(width, 2 * hidden, dtype=dtype, rngs=rngs)
        self.fc2 = nnx.Linear(hidden, width, dtype=dtype, rngs=rngs)
        self.dropout = nnx.Dropout(0.0)

    def __call__(
        self, x: Float[Array, "*B D"], *, key: Key | None = None, train: bool = False
    ) -> Float[Array, "*B D"]:
        gate, value = jnp.split(self.fc1(x), 2, axis=-1)
        x = self.dropout(
            jax.nn.silu(gate) * value, deterministic=not train, rngs=fold(key, 0)
        )
        x = self.fc2(x)
        return self.dropout(x, deterministic=not train, rngs=fold(key, 1))


class ScaledBlock(Block):
    """x + gamma1 attn(norm1(x)), then x + gamma2 mlp(norm2(x))."""

    def __init__(self, config: DINOv2Config, *, dtype, rngs: nnx.Rngs):
        super().__init__(config, dtype=dtype, rngs=rngs)
        self.gamma1 = nnx.Param(jnp.ones(config.width))
        self.gamma2 = nnx.Param(jnp.ones(config.width))
        if config.swiglu:
            self.mlp = SwiGLU(config.width, config.mlp_dim, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B N D"],
        read: slice = slice(None),
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> Float[Array, "B M D"]:
        """The tokens in `read` after this block."""
        branch = _scaled(self.attn(self.norm1(x), read), self.gamma1)
        x = x[:, read] + self.drop_path(branch, key=fold(key, 2), train=train)
        branch = _scaled(self.mlp(self.norm2(x), key=key, train=train), self.gamma2)
        return x + self.drop_path(branch, key=fold(key, 3), train=train)


def _scaled(x: Float[Array, "B N D"], gamma: nnx.Param) -> Float[Array, "B N D"]:
    return x * gamma[...].astype(x.dtype)[None, None]


class DINOv2(ViT):
    """A backbone; its features are the CLS token after the final norm."""

    block = ScaledBlock

    def __init__(self, config: DINOv2Config, *, dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__(config, dtype=dtype, rngs=rngs)
        self.num_prefix = 1 + config.registers
        self.registers = nnx.data(None)
        if config.registers:
            shape = (1, config.registers, config.width)
            self.registers = nnx.Param(
                nnx.initializers.normal(1e-6)(rngs.params(), shape)
            )

    def embed(
        self,
        images: Float[Array, "B h w c"],
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> Float[Array, "B N D"]:
        """Normalised images to [CLS, registers, patches]."""
        x = super().embed(images, key=key, train=train)
        if self.registers is None:
            return x
        registers = self.registers[...].astype(x.dtype)
        registers = jnp.broadcast_to(registers, (x.shape[0], *registers.shape[1:]))
        return jnp.concatenate([x[:, :1], registers, x[:, 1:]], axis=1)


GIANT = DINOv2Config(14, 1536, 40, 24, 4096, swiglu=True)

CONFIGS = {
    "dinov2_s14": sized(DINOv2Config, "s", 14),
    "dinov2_b14": sized(DINOv2Config, "b", 14),
    "dinov2_l14": sized(DINOv2Config, "l", 14),
    "dinov2_g14": GIANT,
    "dinov2_s14_reg4": sized(DINOv2Config, "s", 14, registers=4),
    "dinov2_b14_reg4": sized(DINOv2Config, "b", 14, registers=4),
    "dinov2_l14_reg4": sized(DINOv2Config, "l", 14, registers=4),
    "dinov2_g14_reg4": dataclasses.replace(GIANT, registers=4),
}
