"""Vision tower of the Perception Encoder, core (Bolya et al., arXiv 2504.13181).

CLIP's tower (a norm before the first block) with learned positions and rotary ones, and
SigLIP's attention pool, of eight heads, over all tokens; its projection is left out.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.backbones import positions, rope
from vpt_jax.backbones.clip import CLIP
from vpt_jax.backbones.siglip import AttentionPool
from vpt_jax.backbones.vit import Block, sized

POOL_HEADS = 8


@dataclasses.dataclass(frozen=True)
class PEConfig(rope.RotaryConfig):
    """The shape of a vision tower.

    Attributes:
        native: Patches along one side in pre-training; other grids are spread over as
            many places.
    """

    epsilon: ClassVar[float] = 1e-5
    dropout: ClassVar[float] = 0.0
    # timm's, whose files these are; the release takes bilinear interpolation.
    resize: ClassVar = staticmethod(positions.antialiased)

    native: int = 14

    def angles(self) -> Float[np.ndarray, "g_g half"]:
        """Places count from 1 (0 is that of CLS); columns before rows."""
        places = (np.arange(self.grid) + 1) / self.grid * self.native
        rows, columns = rope.axial(places, self.width // self.heads, base=10_000.0)
        return np.concatenate([columns, rows], axis=1)


class RotaryBlock(Block):
    """ViT's, with rotary attention."""

    def __init__(self, config: PEConfig, *, dtype, rngs: nnx.Rngs):
        super().__init__(config, dtype=dtype, rngs=rngs)
        self.attn = rope.RotaryAttention(config, dtype=dtype, rngs=rngs)


class PE(CLIP):
    """A backbone; its features are what the probe gathers."""

    block = RotaryBlock
    reads = slice(None)

    def __init__(self, config: PEConfig, *, dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__(config, dtype=dtype, rngs=rngs)
        self.head = AttentionPool(config, POOL_HEADS, dtype=dtype, rngs=rngs)

    def pool(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B D"]:
        """What the probe gathers from the tokens after the final norm."""
        return self.head(self.norm(tokens))


CONFIGS = {
    "pe_core_b16": sized(PEConfig, "b", 16),
    "pe_core_l14": sized(PEConfig, "l", 14, image_size=336, native=24),
}
