"""Layers that several backbones share."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.types import Key, fold, widened


class LayerNorm(nnx.LayerNorm):
    """LayerNorm over the last axis; statistics in float32, two-pass variance.

    Its backward pass keeps the input alone and computes the statistics again.
    """

    def __init__(self, width: int, *, epsilon: float = 1e-6, dtype, rngs: nnx.Rngs):
        super().__init__(
            width, epsilon=epsilon, dtype=dtype, use_fast_variance=False, rngs=rngs
        )

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        return jax.checkpoint(super().__call__)(x)


@jax.checkpoint
def gelu(x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Exact (erf) GELU; its backward pass keeps `x` alone and computes erf again."""
    return jax.nn.gelu(x, approximate=False)


def attend(
    query: Float[Array, "B N H K"],
    key: Float[Array, "B M H K"],
    value: Float[Array, "B M H K"],
) -> Float[Array, "B N H K"]:
    """softmax(q k^T / sqrt(K)) v per head; the softmax in float32."""
    query = query * (query.shape[-1] ** -0.5)
    scores = jnp.einsum("bnhk,bmhk->bhnm", query, key)
    weights = jax.nn.softmax(widened(scores)).astype(value.dtype)
    return jnp.einsum("bhnm,bmhk->bnhk", weights, value)


class Attention(nnx.Module):
    """Multi-head self-attention with q, k and v projections kept apart."""

    def __init__(self, width: int, heads: int, *, dtype, rngs: nnx.Rngs):
        self.heads = heads
        self.query = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.key = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.value = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(width, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        split = (*x.shape[:-1], self.heads, x.shape[-1] // self.heads)
        q, k, v = (f(x).reshape(split) for f in (self.query, self.key, self.value))
        return self.out(attend(q, k, v).reshape(x.shape))


class Mlp(nnx.Module):
    """Linear, exact (erf) GELU, linear; dropout after each linear layer."""

    def __init__(self, width: int, hidden: int, *, dtype, rngs: nnx.Rngs):
        self.fc1 = nnx.Linear(width, hidden, dtype=dtype, rngs=rngs)
        self.fc2 = nnx.Linear(hidden, width, dtype=dtype, rngs=rngs)
        self.dropout = nnx.Dropout(0.0)

    def __call__(
        self, x: Float[Array, "*B D"], *, key: Key | None = None, train: bool = False
    ) -> Float[Array, "*B D"]:
        x = gelu(self.fc1(x))
        x = self.dropout(x, deterministic=not train, rngs=fold(key, 0))
        x = self.fc2(x)
        return self.dropout(x, deterministic=not train, rngs=fold(key, 1))
