"""ViT of DINOv3 (Simeoni et al., arXiv 2508.10104): DINOv2's with rotary positions.

tokens: [CLS, 4 registers, patches]; no position is added to any of them
rotary embeddings by the patches' centres, whose coordinates run from -1 to 1 whatever
the image size; no bias in the query, key and value projections
S+ and H+: SwiGLU in place of the MLP
"""

import dataclasses
from typing import ClassVar

import numpy as np
from flax import nnx
from jaxtyping import Float

from vpt_jax.backbones import rope
from vpt_jax.backbones.dinov2 import DINOv2, DINOv2Config, ScaledBlock
from vpt_jax.backbones.swiglu import GatedMlp
from vpt_jax.backbones.vit import sized


@dataclasses.dataclass(frozen=True)
class DINOv3Config(DINOv2Config, rope.RotaryConfig):
    """The shape of a DINOv3 encoder."""

    epsilon: ClassVar[float] = 1e-5
    adds_positions: ClassVar[bool] = False
    interleaved: ClassVar[bool] = False
    unbiased: ClassVar[tuple[str, ...]] = ("query", "key", "value")

    image_size: int = 256
    registers: int = 4

    def angles(self) -> Float[np.ndarray, "g_g half"]:
        """A coordinate of 1 is a whole turn of the first pair; base 100."""
        centres = 2 * (np.arange(self.grid) + 0.5) / self.grid - 1
        turns = rope.axial(2 * np.pi * centres, self.width // self.heads, base=100.0)
        return np.concatenate(turns, axis=1)


class DINOv3Block(ScaledBlock):
    """DINOv2's, with rotary attention."""

    def __init__(self, config: DINOv3Config, *, dtype, rngs: nnx.Rngs):
        super().__init__(config, dtype=dtype, rngs=rngs)
        self.attn = rope.RotaryAttention(config, dtype=dtype, rngs=rngs)
        if config.swiglu:
            width, hidden = config.width, config.mlp_dim
            self.mlp = GatedMlp(width, hidden, None, dtype=dtype, rngs=rngs)


class DINOv3(DINOv2):
    """A backbone; its features are the CLS token after the final norm, as in the
    release (timm takes the mean of the patches unless told)."""

    block = DINOv3Block


CONFIGS = {
    "dinov3_s16": sized(DINOv3Config, "s", 16),
    "dinov3_s16plus": sized(DINOv3Config, "s", 16, swiglu=True),
    "dinov3_b16": sized(DINOv3Config, "b", 16),
    "dinov3_l16": sized(DINOv3Config, "l", 16),
    "dinov3_h16plus": DINOv3Config(16, 1280, 32, 20, 5120, swiglu=True),
}
