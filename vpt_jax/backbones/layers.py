"""Layers that several backbones share."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.backbones import gpu_attention, kernels, tpu_attention, tpu_norm
from vpt_jax.types import Key, fold, widened


def _not_before(dy: Float[Array, "B ..."], *kept: Float[Array, "B ..."]):
    """What a forward pass kept, for a backward pass that computes more from it again.

    Each takes nothing of `dy`, row by row, and so is not there before: else XLA finds
    what the forward pass computed and keeps that, or computes it early (a barrier
    prevents the first; it is gone when XLA for CPU orders its instructions).
    """
    nothing = 0 * dy[(slice(None), *(slice(1),) * (dy.ndim - 1))]
    return tuple(x + nothing.astype(x.dtype) for x in kept)


class LayerNorm(nnx.LayerNorm):
    """LayerNorm over the last axis; statistics in float32, two-pass variance."""

    scale: nnx.Param
    bias: nnx.Param

    def __init__(self, width: int, *, epsilon: float = 1e-6, dtype, rngs: nnx.Rngs):
        super().__init__(width, epsilon=epsilon, dtype=dtype, rngs=rngs)

    @jax.named_scope("norm")
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        scale, bias = self.scale[...], self.bias[...]
        return _normalise(x, scale, bias, self.epsilon, self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _normalise(x, scale, bias, epsilon, dtype):
    """LayerNorm, at least in float32; its backward pass keeps the input as it is, the
    mean and the deviation of each row, and takes two means over a row."""
    return _normalise_forward(x, scale, bias, epsilon, dtype)[0]


def _normalise_forward(x, scale, bias, epsilon, dtype):
    plain = functools.partial(_norm, epsilon=epsilon, dtype=dtype)
    if not tpu_norm.fits(x, dtype):
        return plain(x, scale, bias)

    def kernel(x, scale, bias):
        # Of the plain form, what nobody uses is not computed.
        return tpu_norm.forward(x, scale, bias, epsilon), plain(x, scale, bias)[1]

    return kernels.by_platform(x, scale, bias, tpu=kernel, default=plain)


def _normalise_backward(epsilon, dtype, saved, dy):
    if not tpu_norm.fits(saved[1], dtype):
        return _norm_backward(saved, dy)

    def kernel(saved, dy):
        scale, x, *_ = saved
        dx = tpu_norm.backward(x, scale.reshape(-1), dy, epsilon)
        return dx, *_norm_backward(saved, dy)[1:]

    forms = {"tpu": kernel, "default": _norm_backward}
    return kernels.by_platform(saved, dy, **forms)


_normalise.defvjp(_normalise_forward, _normalise_backward)


def _norm(x, scale, bias, epsilon, dtype):
    wide = widened(x)
    mean = wide.mean(-1, keepdims=True)
    var = jnp.square(wide - mean).mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt(var + epsilon)
    scale, bias = (jnp.expand_dims(p, range(x.ndim - 1)) for p in (scale, bias))
    y = (wide - mean) * (inverse * widened(scale)) + widened(bias)
    return y.astype(dtype), (scale, x, mean, inverse)


def _norm_backward(saved, dy):
    scale, *kept = saved
    dy = widened(dy)
    x, mean, inverse = _not_before(dy, *kept)
    rows = tuple(range(x.ndim - 1))
    normal = (widened(x) - mean) * inverse
    inner = dy * widened(scale)
    along = (inner * normal).mean(-1, keepdims=True)
    dx = inverse * (inner - inner.mean(-1, keepdims=True) - normal * along)
    dscale, dbias = (dy * normal).sum(rows), dy.sum(rows)
    return dx.astype(x.dtype), dscale.astype(scale.dtype), dbias.astype(scale.dtype)


class PatchEmbed(nnx.Conv):
    """A convolution whose windows touch but do not overlap (strides of its kernel's
    size, padding VALID), as one matrix product with the pixels of each patch.

    Trials that train kernels of their own then need no grouped convolution, and the
    kernel's gradient, which XLA for CPU convolves slowly, costs what the output does.
    """

    def __call__(self, images: Float[Array, "B h w C"]) -> Float[Array, "B n m D"]:
        high, wide, channels, width = self.kernel.shape
        rows, columns = images.shape[1] // high, images.shape[2] // wide
        whole = images[:, : rows * high, : columns * wide].astype(self.dtype)
        patches = whole.reshape(-1, rows, high, columns, wide * channels).swapaxes(2, 3)
        patches = patches.reshape(-1, rows, columns, high * wide * channels)
        out = patches @ self.kernel[...].astype(self.dtype).reshape(-1, width)
        if self.bias is None:
            return out
        return out + self.bias[...].astype(self.dtype).reshape(1, 1, 1, -1)


class BatchNorm(nnx.Module):
    """BatchNorm over all axes but the last, as PyTorch computes it.

    Normalises with the running statistics, unless `use_batch` is set and `train` is
    on: then with those of the batch (biased variance), and the running ones move a
    tenth of the way to them (unbiased variance).

    Attributes:
        use_batch: Whether training uses the statistics of the batch.
        scale, bias: Parameters, (D,).
        mean, var: Running statistics, (D,), `nnx.BatchStat`.
    """

    momentum = 0.1
    epsilon = 1e-5

    def __init__(self, width: int, *, dtype, rngs: nnx.Rngs):
        del rngs  # nothing here is random
        self.dtype = dtype
        self.use_batch = False
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))
        self.mean = nnx.BatchStat(jnp.zeros(width))
        self.var = nnx.BatchStat(jnp.ones(width))

    def __call__(
        self,
        x: Float[Array, "B *N D"],
        mask: Float[Array, " B"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B *N D"]:
        """Normalise; rows where `mask` is 0 do not count in the batch's statistics."""
        x = widened(x)
        if train and self.use_batch:
            mean, var = self._measure(x, mask)
        else:
            mean, var = self.mean[...], self.var[...]
        factor = jax.lax.rsqrt(widened(var) + self.epsilon) * widened(self.scale[...])
        shift = widened(self.bias[...]) - widened(mean) * factor
        by_channel = (1,) * (x.ndim - 1) + (-1,)
        return (x * factor.reshape(by_channel) + shift.reshape(by_channel)).astype(
            self.dtype
        )

    def _measure(self, x, mask):
        """Mean and biased variance of the batch; moves the running ones."""
        axes = tuple(range(x.ndim - 1))
        where = None if mask is None else mask.reshape(-1, *(1,) * (x.ndim - 1)) > 0
        mean = x.mean(axes, where=where)
        var = x.var(axes, where=where)
        rows = x.shape[0] if mask is None else (mask > 0).sum()
        count = rows * math.prod(x.shape[1:-1])
        unbiased = var * (count / jnp.maximum(count - 1, 1))
        for running, now in ((self.mean, mean), (self.var, unbiased)):
            moved = running[...] + self.momentum * (now - running[...])
            running[...] = moved.astype(running[...].dtype)
        return mean, var


@jax.checkpoint
def gelu(x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Exact GELU by erf, which costs less than JAX's erfc; its backward pass keeps `x`
    alone and computes erf again."""
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))


def quick_gelu(x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """x sigmoid(1.702 x), the activation of OpenAI's CLIP."""
    return x * jax.nn.sigmoid(1.702 * x)


def gelu_tanh(x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """GELU by its tanh approximation, as in big_vision."""
    return jax.nn.gelu(x, approximate=True)


ACTIVATIONS = {"gelu": gelu, "quick_gelu": quick_gelu, "gelu_tanh": gelu_tanh}


class DropPath(nnx.Module):
    """Leaves out a whole residual branch, one draw per image, while training.

    Attributes:
        rate: Probability; 0 unless a way of tuning sets it.
    """

    def __init__(self):
        self.rate = 0.0

    def __call__(
        self, x: Float[Array, "B *N D"], *, key: Key | None = None, train: bool = False
    ) -> Float[Array, "B *N D"]:
        if not train or self.rate == 0:
            return x
        each = (x.shape[0],) + (1,) * (x.ndim - 1)
        assert key is not None  # whoever trains has one
        kept = jax.random.bernoulli(key, 1 - self.rate, each)
        return jnp.where(kept, x / (1 - self.rate), jnp.zeros_like(x))


@jax.named_scope("attend")
def attend(
    query: Float[Array, "B N H K"],
    key: Float[Array, "B M H K"],
    value: Float[Array, "B M H K"],
) -> Float[Array, "B N H K"]:
    """softmax(q k^T / sqrt(K)) v per head; the softmax in float32.

    Lowered for a GPU by cuDNN and for a TPU by a kernel, where these can. A few tokens
    that ask all are as quick without.
    """
    if not gpu_attention.fits(query, key):
        return _attend(query, key, value)
    forms = {"cuda": gpu_attention.attend, "default": _attend}
    return kernels.by_platform(query, key, value, **forms)


@jax.custom_vjp
def _attend(query, key, value):
    """`attend`; the weights, of which there are N M for each head, are not kept for the
    backward pass but computed again from two sums a row."""
    return _attend_forward(query, key, value)[0]


def _attend_forward(query, key, value):
    forward = _by_platform(tpu_attention.forward, _weigh, query, key)
    return forward(query, key, value)


def _attend_backward(saved, dout):
    query, key, *_ = saved
    forms = tpu_attention.backward, _weigh_backward
    return _by_platform(*forms, query.swapaxes(1, 2), key.swapaxes(1, 2))(saved, dout)


_attend.defvjp(_attend_forward, _attend_backward)


def _by_platform(kernel, plain, query, key):
    """The kernel for a TPU, where it can."""
    if not tpu_attention.fits(query, key):
        return plain
    return functools.partial(kernels.by_platform, tpu=kernel, default=plain)


def _weigh(query, key, value):
    """By products over (B, H, N, K)."""
    query = query * (query.shape[-1] ** -0.5)
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
    scores = widened(query @ key.mT)
    top = scores.max(-1, keepdims=True)
    weights = jnp.exp(scores - top)
    total = weights.sum(-1, keepdims=True)
    out = widened(weights.astype(value.dtype) @ value) / total
    out = out.astype(value.dtype)
    return out.swapaxes(1, 2), (query, key, value, out, top, total)


def _weigh_backward(saved, dout):
    dout = dout.swapaxes(1, 2)
    query, key, value, out, top, total = _not_before(dout, *saved)
    weights = jnp.exp(widened(query @ key.mT) - top)
    scaled = widened(dout) / total
    along = (scaled * widened(out)).sum(-1, keepdims=True)
    scaled = scaled.astype(dout.dtype)
    dscores = weights * (widened(scaled @ value.mT) - along)
    weights, dscores = weights.astype(value.dtype), dscores.astype(query.dtype)
    # Of the two factors, the small one is transposed.
    dkey, dvalue = (query.mT @ dscores).mT, (scaled.mT @ weights).mT
    dquery, dkey, dvalue = (x.swapaxes(1, 2) for x in (dscores @ key, dkey, dvalue))
    return dquery * (dquery.shape[-1] ** -0.5), dkey, dvalue


class Attention(nnx.Module):
    """Multi-head self-attention with q, k and v projections kept apart."""

    def __init__(self, width: int, heads: int, *, dtype, rngs: nnx.Rngs):
        self.heads = heads
        self.query = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.key = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.value = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(width, width, dtype=dtype, rngs=rngs)

    @jax.named_scope("projections")
    def __call__(
        self, x: Float[Array, "B N D"], read: slice = slice(None)
    ) -> Float[Array, "B M D"]:
        """Every token is attended to; only those in `read` attend."""
        asking = x[:, read]
        q, k, v = self.query(asking), self.key(x), self.value(x)
        q, k, v = (y.reshape(*y.shape[:2], self.heads, -1) for y in (q, k, v))
        q, k = self.placed(q, k, read)
        return self.out(attend(q, k, v).reshape(asking.shape))

    def placed(
        self, query: Float[Array, "B M H K"], key: Float[Array, "B N H K"], read: slice
    ) -> tuple[Float[Array, "B M H K"], Float[Array, "B N H K"]]:
        """Queries of the tokens in `read` and all keys, told where they stand: here
        the tokens themselves know."""
        return query, key


class Mlp(nnx.Module):
    """Linear, activation, linear; dropout after each linear layer."""

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        activation: str = "gelu",
        dtype,
        rngs: nnx.Rngs,
    ):
        self.activation = activation
        self.fc1 = nnx.Linear(width, hidden, dtype=dtype, rngs=rngs)
        self.fc2 = nnx.Linear(hidden, width, dtype=dtype, rngs=rngs)
        self.dropout = nnx.Dropout(0.0)

    @jax.named_scope("mlp")
    def __call__(
        self, x: Float[Array, "*B D"], *, key: Key | None = None, train: bool = False
    ) -> Float[Array, "*B D"]:
        x = ACTIVATIONS[self.activation](self.fc1(x))
        x = self.dropout(x, deterministic=not train, rngs=fold(key, 0))
        x = self.fc2(x)
        return self.dropout(x, deterministic=not train, rngs=fold(key, 1))
