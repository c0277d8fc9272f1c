"""Attention over a few hundred tokens as one kernel for TPU, and its gradient.

A program takes the whole rows of an image; scores exist only in the chip's own memory.
There, tokens lie along the lanes and channels along the sublanes (B, D, N): a head is
cut without moving anything, any number of tokens will do, and the sums of the softmax,
over scores (keys, queries), run down the sublanes, which is the cheap way. A projection
writes its output in this order at no cost.
"""

import functools
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from vpt_jax.backbones import kernels
from vpt_jax.types import widened

MAX_SCORES = 640 * 640
"""Of one head, float32; in the backward pass a few such arrays lie in VMEM at once."""

TOGETHER = 16
"""Heads that a program does one after the other, of a few small images if need be."""

Saved = tuple[Array, ...]
"""(B, H, N or M, K) of query, key, value and out; (B, H, N, 1) of the largest score of
each row and of the sum of exp(score - largest)."""


def fits(query: Float[Array, "B N H K"], key: Float[Array, "B M H K"]) -> bool:
    """Whether a head's scores are few enough, and not only a few tokens ask."""
    few = query.shape[1] * key.shape[1] <= MAX_SCORES
    return few and query.shape == key.shape and kernels.divides(query.shape[0])


def forward(
    query: Float[Array, "B N H K"],
    key: Float[Array, "B M H K"],
    value: Float[Array, "B M H K"],
    bias: Float[Array, "W H N M"] | None = None,
) -> tuple[Float[Array, "B N H K"], Saved]:
    """softmax(q k^T / sqrt(K) + bias) v, and what `backward` wants of it.

    Args:
        query, key, value: Of B images, or windows.
        bias: Of W of them, one after the other; B is a multiple of W.
    """
    heads = query.shape[-2]
    arrays = map(_tokens_last, (query, key, value))
    shared = () if bias is None else (bias.mT,)
    run = functools.partial(_forward, heads)
    out, top, total = kernels.on_devices(run, tuple(arrays), shared)
    out = _tokens_first(out, heads)
    arrays = (x.swapaxes(1, 2) for x in (query, key, value, out))
    return out, (*arrays, top.mT, total.mT)


def backward(
    saved: Saved,
    dout: Float[Array, "B N H K"],
    bias: Float[Array, "W H N M"] | None = None,
) -> tuple[Float[Array, "B N H K"], Float[Array, "B M H K"], Float[Array, "B M H K"]]:
    """The gradients of query, key and value; the scores are computed again."""
    *arrays, top, total = saved
    heads = dout.shape[-2]
    arrays = (_tokens_last(x.swapaxes(1, 2)) for x in arrays)
    arrays = *arrays, top.mT, total.mT, _tokens_last(dout)
    shared = () if bias is None else (bias.mT,)
    run = functools.partial(_backward, heads)
    found = kernels.on_devices(run, arrays, shared)
    dquery, dkey, dvalue = (_tokens_first(x, heads) for x in found)
    return dquery, dkey, dvalue


def _tokens_last(x: Float[Array, "B N H K"]) -> Float[Array, "B D N"]:
    return x.reshape(*x.shape[:-2], -1).mT


def _tokens_first(x: Float[Array, "B D N"], heads: int) -> Float[Array, "B N H K"]:
    return x.mT.reshape(*x.shape[:-2], x.shape[-1], heads, -1)


def _forward_kernel(query, key, value, *rest):
    """Some heads of some images: references to (B, D, N), to (B, H, 1, N) of sums, and
    to (W, H, M, N) of a bias."""
    *bias, out, top, total = rest
    for b, h, rows in _heads(query, top):
        q, k, v = _scaled(query, b, rows), key[b, rows], value[b, rows]
        scores = _scores(q, k, bias, b, h)
        highest = scores.max(0, keepdims=True)
        weights = jnp.exp(scores - highest)
        whole = weights.sum(0, keepdims=True)
        top[b, h], total[b, h] = highest, whole
        out[b, rows] = (_dot(v, weights.astype(v.dtype), 1, 0) / whole).astype(v.dtype)


def _backward_kernel(query, key, value, out, top, total, dout, *rest):
    *bias, dquery, dkey, dvalue = rest
    for b, h, rows in _heads(query, top):
        q, k, v = _scaled(query, b, rows), key[b, rows], value[b, rows]
        dy = dout[b, rows]
        weights = jnp.exp(_scores(q, k, bias, b, h) - top[b, h])
        divided = widened(dy) / total[b, h]
        along = (divided * widened(out[b, rows])).sum(0, keepdims=True)
        divided = divided.astype(dy.dtype)
        dscores = (weights * (_dot(v, divided, 0, 0) - along)).astype(q.dtype)
        dq = _dot(k, dscores, 1, 0) * _scale(q)
        dquery[b, rows] = dq.astype(q.dtype)
        dkey[b, rows] = _dot(q, dscores, 1, 1).astype(k.dtype)
        dvalue[b, rows] = _dot(divided, weights.astype(v.dtype), 1, 1).astype(v.dtype)


def _heads(query, top):
    """The number of each image and head of a block, and the head's channels."""
    images, heads = top.shape[:2]
    width = query.shape[1] // heads
    for b, h in itertools.product(range(images), range(heads)):
        yield b, h, slice(h * width, (h + 1) * width)


def _scale(x: Float[Array, "K N"]) -> float:
    return x.shape[0] ** -0.5


def _scaled(query, b, rows):
    q = query[b, rows]
    return (widened(q) * _scale(q)).astype(q.dtype)


def _scores(q, k, bias, b, h):
    scores = _dot(k, q, 0, 0)
    for ref in bias:  # one or none; one for all images, or for each
        scores = scores + widened(ref[b if len(ref) > 1 else 0, h])
    return scores


def _dot(a, b, axis_a: int, axis_b: int):
    """The product over one axis of each."""
    wide = jnp.promote_types(a.dtype, jnp.float32)
    axes = (((axis_a,), (axis_b,)), ((), ()))
    return jax.lax.dot_general(a, b, axes, preferred_element_type=wide)


@functools.partial(jax.jit, static_argnums=0)  # traced once, not in every layer
def _forward(heads: int, query, key, value, *bias):
    wide = jnp.promote_types(query.dtype, jnp.float32)
    sums = (len(query), heads, 1, query.shape[-1]), wide
    shapes = ((query.shape, query.dtype), sums, sums)
    arrays = query, key, value
    return _run(_forward_kernel, arrays, bias, shapes, heads, products=2)


@functools.partial(jax.jit, static_argnums=0)
def _backward(heads: int, query, key, value, out, top, total, dout, *bias):
    shapes = tuple((x.shape, x.dtype) for x in (query, key, value))
    arrays = query, key, value, out, top, total, dout
    return _run(_backward_kernel, arrays, bias, shapes, heads, products=5)


def _run(kernel: Callable, arrays, bias, shapes, heads: int, products: int):
    """A kernel over images and heads, on one device.

    Args:
        kernel: Takes references to some heads of some images.
        arrays, shapes: Of what it reads and writes: (B, D, N) or (B, H, 1, N).
        bias: One (W, H, M, N) or none.
        heads: H.
        products: Products of a head's scores with a matrix of its width.
    """
    outputs = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
    images, width, tokens = arrays[0].shape
    moved = sum(x.size * x.dtype.itemsize for x in (*arrays, *outputs))
    few = _heads_at_once(heads, width, moved // images)
    each = [len(x) for x in bias if len(x) > 1]
    several = _images_at_once(math.gcd(images, *each), few, heads, moved // images)

    def block(x):
        shape = (several, x.shape[1] * few // heads, *x.shape[2:])
        rest = (0,) * (x.ndim - 2)
        return pl.BlockSpec(shape, lambda image, group: (image, group, *rest))

    def repeated(x):
        once = several if len(x) > 1 else 1
        shape, turns = (once, few, *x.shape[2:]), len(x) // once
        return pl.BlockSpec(shape, lambda image, group: (image % turns, group, 0, 0))

    scores = images * tokens * arrays[1].shape[-1]
    return pl.pallas_call(
        kernel,
        grid=(images // several, heads // few),
        in_specs=[*map(block, arrays), *map(repeated, bias)],
        out_specs=[block(x) for x in outputs],
        out_shape=outputs,
        compiler_params=kernels.independent(2),
        cost_estimate=pl.CostEstimate(
            flops=2 * products * scores * width,
            transcendentals=scores * heads,
            bytes_accessed=moved + sum(x.size * x.dtype.itemsize for x in bias),
        ),
        name=f"attention{kernel.__name__}",
    )(*arrays, *bias)


def _heads_at_once(heads: int, width: int, size: int) -> int:
    """The most heads, all groups being alike, that fit of an image of `size` bytes."""
    divisors = (n for n in range(1, heads) if heads % n == 0)
    ways = [*(n for n in divisors if width * n // heads % 16 == 0), heads]
    fitting = [n for n in ways if size * n // heads <= kernels.BLOCKS]
    return max(fitting, default=ways[0])


def _images_at_once(images: int, few: int, heads: int, size: int) -> int:
    """How many images a program does, of `size` bytes each and all their heads."""
    most = min(TOGETHER // few, kernels.BLOCKS // size) if few == heads else 1
    return max((n for n in range(1, most + 1) if images % n == 0), default=1)
