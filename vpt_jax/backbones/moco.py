"""ViT of MoCo v3 (Chen et al., arXiv 2104.02057): fixed position embeddings.

ViT-S has twelve heads there, unlike elsewhere.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from vpt_jax.backbones import positions
from vpt_jax.backbones.vit import ViT, ViTConfig, sized


def _recompute(grid: np.ndarray, new: int) -> np.ndarray:
    return positions.sincos(new, grid.shape[-1])


@dataclasses.dataclass(frozen=True)
class MoCoConfig(ViTConfig):
    """The shape of a MoCo v3 encoder; other image sizes recompute the positions."""

    dropout: ClassVar[float] = 0.0
    resize: ClassVar = staticmethod(_recompute)


class MoCo(ViT):
    """A backbone; its features are the CLS token after the final norm."""

    def __init__(self, config: MoCoConfig, *, dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__(config, dtype=dtype, rngs=rngs)
        grid = positions.sincos(config.grid, config.width)
        patches = jnp.asarray(grid.reshape(1, -1, config.width))
        with_cls = jnp.pad(patches, ((0, 0), (1, 0), (0, 0)))
        self.pos_embed = nnx.Param(with_cls)


CONFIGS = {
    "mocov3_s16": MoCoConfig(16, 384, 12, 12, 1536),
    "mocov3_b16": sized(MoCoConfig, "b", 16),
}
