"""Rotary position embeddings in two dimensions (Su et al., arXiv 2104.09864).

Queries and keys of the patches turn with their row and their column: half of a head's
pairs of channels with the one, half with the other, each at its own pace. So a score
depends on how far apart two patches are. What stands before the patches (CLS,
registers, prompts) has no place in the image and does not turn.
"""

import functools
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.backbones.layers import Attention
from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.types import widened


class RotaryConfig(ViTConfig):
    """What the attention of a family with rotary embeddings has to know.

    Attributes:
        interleaved: A pair is two neighbouring channels; else the second is half a
            head further on.
        unbiased: Which of the projections have no bias.
    """

    interleaved: ClassVar[bool] = True
    unbiased: ClassVar[tuple[str, ...]] = ()

    def angles(self) -> Float[np.ndarray, "g_g half"]:
        """How far each pair of channels of a head turns on each patch [rad]."""
        raise NotImplementedError


def axial(
    places: Float[np.ndarray, " g"], channels: int, base: float
) -> tuple[Float[np.ndarray, "g_g quarter"], Float[np.ndarray, "g_g quarter"]]:
    """Angles on a square grid [rad]: those by the row, those by the column.

    Args:
        places: Coordinate of each row, and of each column.
        channels: K, of a head.
        base: Pair i turns by a place over base^(i / (K / 4)).
    """
    quarter = channels // 4
    each = places[:, None] * base ** -(np.arange(quarter) / quarter)
    shape = (len(places), len(places), quarter)
    rows, columns = np.broadcast_to(each[:, None], shape), np.broadcast_to(each, shape)
    return rows.reshape(-1, quarter), columns.reshape(-1, quarter)


class RotaryAttention(Attention):
    """Attention in which the patches, the last tokens of all, turn."""

    def __init__(self, config: RotaryConfig, *, dtype, rngs: nnx.Rngs):
        width = config.width
        super().__init__(width, config.heads, dtype=dtype, rngs=rngs)
        self.config = config
        for name in config.unbiased:
            plain = nnx.Linear(width, width, use_bias=False, dtype=dtype, rngs=rngs)
            setattr(self, name, plain)

    def placed(
        self, query: Float[Array, "B M H K"], key: Float[Array, "B N H K"], read: slice
    ) -> tuple[Float[Array, "B M H K"], Float[Array, "B N H K"]]:
        """Queries of the tokens in `read` and all keys, turned."""
        angles = _angles(self.config, key.shape[1])
        paired = self.config.interleaved
        return _turned(query, angles[read], paired), _turned(key, angles, paired)


@functools.lru_cache
def _angles(config: RotaryConfig, tokens: int) -> Float[np.ndarray, "N half"]:
    """Of all tokens; 0 for those before the patches."""
    angles = config.angles()
    return np.pad(angles, ((tokens - len(angles), 0), (0, 0)))


def _turned(
    x: Float[Array, "B N H K"], angles: Float[np.ndarray, "N half"], interleaved: bool
) -> Float[Array, "B N H K"]:
    """Each pair of channels turned, first channels before second ones: a product of two
    vectors does not ask in which order their channels are."""
    wide = widened(x)
    cos, sin = (
        jnp.asarray(f(angles), wide.dtype)[None, :, None] for f in (np.cos, np.sin)
    )
    if interleaved:
        first, second = wide[..., ::2], wide[..., 1::2]
    else:
        first, second = jnp.split(wide, 2, axis=-1)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
