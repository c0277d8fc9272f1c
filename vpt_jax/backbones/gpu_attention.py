"""Attention on NVIDIA's GPUs by cuDNN, which keeps no scores.

While training, JAX (0.10.2 to 0.12.0.1) refuses an odd number of tokens: its rule is
meant for biases, but a placeholder passes for one. Prompts make the number odd as often
as not. Such images get one token more, which cuDNN is told to leave out.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vpt_jax.backbones import kernels

MAX_WIDTH = 128
"""Channels of a head that there are kernels for on every GPU from Ampere on."""


def fits(query: Float[Array, "B N H K"], key: Float[Array, "B M H K"]) -> bool:
    """Whether cuDNN has a kernel, and not only a few tokens ask."""
    width = query.shape[-1]
    known = width <= MAX_WIDTH and width % 8 == 0
    known = known and query.dtype in (jnp.bfloat16, jnp.float16)
    whole = query.shape == key.shape and kernels.divides(query.shape[0])
    return known and whole and _installed()


@functools.cache
def _installed() -> bool:
    """Whether JAX can trace it here: its plugin for CUDA knows the version of cuDNN."""
    x = jax.ShapeDtypeStruct((1, 2, 1, 8), jnp.bfloat16)
    try:
        jax.eval_shape(lambda x: _cudnn(x, x, x), x)
    except (NotImplementedError, RuntimeError):
        return False
    return True


def attend(
    query: Float[Array, "B N H K"],
    key: Float[Array, "B N H K"],
    value: Float[Array, "B N H K"],
) -> Float[Array, "B N H K"]:
    """softmax(q k^T / sqrt(K)) v per head; to be lowered for CUDA alone.

    On several devices each attends for its own images: left to itself, XLA gathers
    those of several trials, or fails.
    """
    return kernels.on_devices(_attend, (query, key, value))


@jax.custom_vjp
def _attend(query, key, value):
    return _forward(query, key, value)[0]


def _forward(query, key, value):
    out, pull = jax.vjp(_padded, *_alike(query, key, value))
    return out, (pull, out)


def _backward(saved, dout):
    pull, out = saved
    return pull(_alike(dout, out)[0])


_attend.defvjp(_forward, _backward)


def _alike(*arrays: Float[Array, "B N H K"]) -> list[Float[Array, "B N H K"]]:
    """The same arrays, all with a trial axis where one of them has it.

    JAX's rules for `vmap` want it so, but a method may change one of them alone. Cut
    from one array they agree; XLA removes the copies.
    """
    return jnp.split(jnp.concatenate(arrays, axis=1), len(arrays), axis=1)


def _padded(query, key, value):
    tokens = query.shape[1]
    if tokens % 2 == 0:
        return _cudnn(query, key, value)
    one_more = ((0, 0), (0, 1), (0, 0), (0, 0))
    arrays = (jnp.pad(x, one_more) for x in (query, key, value))
    return _cudnn(*arrays, lengths=_lengths(query))[:, :tokens]


def _lengths(x: Float[Array, "B N H K"]) -> Int[Array, " B"]:
    """N of each image; computed from `x`, to have its trial axis too."""
    return x.shape[1] + 0 * (x[:, 0, 0, 0] > 0).astype(jnp.int32)


def _cudnn(query, key, value, lengths=None):
    return jax.nn.dot_product_attention(
        query,
        key,
        value,
        query_seq_lengths=lengths,
        key_value_seq_lengths=lengths,
        implementation="cudnn",
    )
