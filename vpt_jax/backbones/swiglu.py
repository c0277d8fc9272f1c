"""SwiGLU with its gate apart (Shazeer, arXiv 2002.05202)."""

import jax
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.backbones.layers import LayerNorm
from vpt_jax.types import Key, fold


class GatedMlp(nnx.Module):
    """fc2(norm(silu(gate(x)) fc1(x))), where `epsilon` asks for a norm.

    Dropout behind the product and behind `fc2`.
    """

    def __init__(
        self, width: int, hidden: int, epsilon: float | None, *, dtype, rngs: nnx.Rngs
    ):
        self.gate = nnx.Linear(width, hidden, dtype=dtype, rngs=rngs)
        self.fc1 = nnx.Linear(width, hidden, dtype=dtype, rngs=rngs)
        self.norm = nnx.data(None)
        if epsilon is not None:
            self.norm = LayerNorm(hidden, epsilon=epsilon, dtype=dtype, rngs=rngs)
        self.fc2 = nnx.Linear(hidden, width, dtype=dtype, rngs=rngs)
        self.dropout = nnx.Dropout(0.0)

    @jax.named_scope("mlp")
    def __call__(
        self, x: Float[Array, "*B D"], *, key: Key | None = None, train: bool = False
    ) -> Float[Array, "*B D"]:
        x = jax.nn.silu(self.gate(x)) * self.fc1(x)
        x = self.dropout(x, deterministic=not train, rngs=fold(key, 0))
        x = self.fc2(x if self.norm is None else self.norm(x))
        return self.dropout(x, deterministic=not train, rngs=fold(key, 1))
