"""ViT of EVA-02 (Fang et al., arXiv 2303.11331).

Learned positions and rotary ones, SwiGLU (in B and L with a norm inside), no bias in
the key projection. The features are the norm of the mean of all tokens but CLS, as of
MAE.
"""

import dataclasses
from typing import ClassVar

import numpy as np
from flax import nnx
from jaxtyping import Float

from vpt_jax.backbones import positions, rope
from vpt_jax.backbones.mae import MAE
from vpt_jax.backbones.swiglu import GatedMlp
from vpt_jax.backbones.vit import Block

NATIVE = 16
"""Patches along one side in pre-training; other grids are spread over as many."""


@dataclasses.dataclass(frozen=True)
class EVA02Config(rope.RotaryConfig):
    """The shape of an EVA-02 encoder.

    Attributes:
        normed: Whether the SwiGLU has a norm inside.
    """

    dropout: ClassVar[float] = 0.0
    unbiased: ClassVar[tuple[str, ...]] = ("key",)
    # timm's, whose files these are.
    resize: ClassVar = staticmethod(positions.antialiased)

    normed: bool = False

    def angles(self) -> Float[np.ndarray, "g_g half"]:
        """Places count from 0; rows before columns."""
        places = np.arange(self.grid) / self.grid * NATIVE
        turns = rope.axial(places, self.width // self.heads, base=10_000.0)
        return np.concatenate(turns, axis=1)


class EVA02Block(Block):
    """ViT's, with rotary attention and a gated MLP."""

    def __init__(self, config: EVA02Config, *, dtype, rngs: nnx.Rngs):
        super().__init__(config, dtype=dtype, rngs=rngs)
        self.attn = rope.RotaryAttention(config, dtype=dtype, rngs=rngs)
        epsilon = config.epsilon if config.normed else None
        width, hidden = config.width, config.mlp_dim
        self.mlp = GatedMlp(width, hidden, epsilon, dtype=dtype, rngs=rngs)


class EVA02(MAE):
    """A backbone; its features are the mean over all tokens but CLS, then `norm`."""

    block = EVA02Block


CONFIGS = {
    "eva02_s14": EVA02Config(14, 384, 12, 6, 1024),
    "eva02_b14": EVA02Config(14, 768, 12, 12, 2048, normed=True),
    "eva02_l14": EVA02Config(14, 1024, 24, 16, 2730, normed=True),
}
