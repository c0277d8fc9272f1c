"""LayerNorm and its gradient as kernels for TPU: each array is moved only once."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from vpt_jax.backbones import kernels
from vpt_jax.types import widened

BLOCK = 2**20
"""Bytes of each array in a block; some as float32 lie beside them."""


def fits(x: Float[Array, "*B D"], dtype) -> bool:
    """Whether `x` are tokens of the type that their normalised form has."""
    return x.ndim == 3 and x.dtype == dtype and kernels.divides(x.shape[0])


def forward(
    x: Float[Array, "B N D"],
    scale: Float[Array, " D"],
    bias: Float[Array, " D"],
    epsilon: float,
) -> Float[Array, "B N D"]:
    """The normalised rows, of the type of `x`."""
    run = functools.partial(_forward, epsilon)
    return kernels.on_devices(run, (x,), (scale, bias))


def backward(
    x: Float[Array, "B N D"],
    scale: Float[Array, " D"],
    dy: Float[Array, "B N D"],
    epsilon: float,
) -> Float[Array, "B N D"]:
    """The gradient of `x`; mean and deviation are computed again."""
    run = functools.partial(_backward, epsilon)
    return kernels.on_devices(run, (x, dy), (scale,))


def _forward_kernel(epsilon, x, scale, bias, y):
    """Some rows: references to (B, N, D), and to (1, 1, D) of scale and bias."""
    normal, _ = _normal(widened(x[...]), epsilon)
    scaled = normal * widened(scale[...]) + widened(bias[...])
    y[...] = scaled.astype(y.dtype)


def _backward_kernel(epsilon, x, dy, scale, dx):
    normal, inverse = _normal(widened(x[...]), epsilon)
    inner = widened(dy[...]) * widened(scale[...])
    along = (inner * normal).mean(-1, keepdims=True)
    inner = inner - inner.mean(-1, keepdims=True) - normal * along
    dx[...] = (inverse * inner).astype(dx.dtype)


def _normal(x, epsilon):
    """Rows of mean 0 and deviation 1, and what they were multiplied by."""
    centred = x - x.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt(variance + epsilon)
    return centred * inverse, inverse


@functools.partial(jax.jit, static_argnums=0)  # traced once, not in every layer
def _forward(epsilon: float, x, scale, bias) -> jax.Array:
    kernel = functools.partial(_forward_kernel, epsilon)
    return _run(kernel, "norm_forward", x, scale, bias)


@functools.partial(jax.jit, static_argnums=0)
def _backward(epsilon: float, x, dy, scale) -> jax.Array:
    kernel = functools.partial(_backward_kernel, epsilon)
    return _run(kernel, "norm_backward", x, dy, scale)


def _run(kernel: Callable, name: str, x, *rest) -> jax.Array:
    """A kernel over blocks of rows, on one device; `rest` is like `x` or (D,)."""
    images, tokens, width = x.shape
    rows = max(8, BLOCK // (width * x.dtype.itemsize))
    tall = tokens if tokens <= rows else rows // 8 * 8
    block = max(1, min(images, rows // tall)), tall, width
    whole = pl.BlockSpec((1, 1, width), lambda *_: (0, 0, 0))
    part = pl.BlockSpec(block, lambda b, n: (b, n, 0))
    specs = [part if y.ndim == 3 else whole for y in rest]
    inputs = (x, *(y if y.ndim == 3 else y[None, None] for y in rest))
    moved = 2 * x.size + sum(y.size for y in rest)
    return pl.pallas_call(
        kernel,
        grid=(pl.cdiv(images, block[0]), pl.cdiv(tokens, tall)),
        in_specs=[part, *specs],
        out_specs=part,
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        compiler_params=kernels.independent(2),
        cost_estimate=pl.CostEstimate(
            flops=10 * x.size,
            transcendentals=images * tokens,
            bytes_accessed=moved * x.dtype.itemsize,
        ),
        name=name,
    )(*inputs)
