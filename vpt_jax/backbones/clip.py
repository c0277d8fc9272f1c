"""Vision tower of CLIP (Radford et al., arXiv 2103.00020), without its projection.

A ViT with a norm before the first block and no bias in the patch embedding.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.backbones import positions
from vpt_jax.backbones.layers import LayerNorm, PatchEmbed
from vpt_jax.backbones.vit import ViT, ViTConfig, sized
from vpt_jax.types import Key


@dataclasses.dataclass(frozen=True)
class CLIPConfig(ViTConfig):
    """The shape of a vision tower.

    Attributes:
        activation: 'quick_gelu' in OpenAI's release, 'gelu' in most of OpenCLIP's.
    """

    epsilon: ClassVar[float] = 1e-5
    dropout: ClassVar[float] = 0.0
    resize: ClassVar = staticmethod(positions.cubic)

    activation: str = "quick_gelu"


class CLIP(ViT):
    """A backbone; its features are the CLS token after the final norm."""

    def __init__(self, config: ViTConfig, *, dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__(config, dtype=dtype, rngs=rngs)
        width, patch = config.width, (config.patch, config.patch)
        self.patch_embed = PatchEmbed(
            3,
            width,
            patch,
            patch,
            padding="VALID",
            use_bias=False,
            dtype=dtype,
            rngs=rngs,
        )
        self.pre_norm = LayerNorm(width, epsilon=config.epsilon, dtype=dtype, rngs=rngs)

    def embed(
        self,
        images: Float[Array, "B h w c"],
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> Float[Array, "B N D"]:
        """Normalised images to [CLS, patches] after the first norm."""
        return self.pre_norm(super().embed(images, key=key, train=train))


CONFIGS = {
    "clip_b32": sized(CLIPConfig, "b", 32),
    "clip_b16": sized(CLIPConfig, "b", 16),
    "clip_l14": sized(CLIPConfig, "l", 14),
}
