"""Heads that label every pixel, on the tokens of a plain ViT.

    PUP       tokens of the last block -> decoder of 4 stages x 2; while training, of
              three blocks before it -> auxiliary decoders of 2 stages x 4
    linear    tokens of the last block -> BatchNorm, 1 x 1

    decoder   LN, stages of [3 x 3 convolution to 256, BatchNorm, ReLU, bilinear
              upsampling], 1 x 1 to C classes

SETR's progressive upsampling (Zheng et al., CVPR 2021, arXiv 2012.15840) as
mmsegmentation builds it (`setr_up_head.py` and `_base_/models/setr_pup.py`), which is
what the VPT paper's segmentation was built on, not SETR's own code. The 1 x 1 layer and
the last upsampling commute, so the head stops before that: its logits are those of a
coarser grid, and whoever uses them enlarges them. The linear head is DINOv2's (Oquab et
al., 2023, arXiv 2304.07193, section 7.4).
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.backbones import kernels
from vpt_jax.backbones.layers import BatchNorm, LayerNorm
from vpt_jax.bilinear import matrix
from vpt_jax.model import DenseHead, FinalBias
from vpt_jax.types import widened

CHANNELS = 256
AUXILIARY = (9, 14, 19)  # blocks of 24, from 0


class Logits(NamedTuple):
    """Of classes on square grids; the auxiliary ones while training only."""

    main: Float[Array, "B m m C"]
    auxiliary: tuple[Float[Array, "B n n C"], ...] = ()


def convolved(
    x: Float[Array, "B m m D"], kernel: Float[Array, "3 3 D K"]
) -> Float[Array, "B m m K"]:
    """3 x 3, padded with 0. On a CPU by nine matrix products: trials make it a grouped
    convolution, which took 40 times as long there."""
    forms = {"cuda": _convolution, "tpu": _convolution, "default": _products}
    return kernels.by_platform(x, kernel, **forms)


def _convolution(x, kernel):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=layout
    )


def _products(x, kernel):
    _, height, width, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j]
        for i in range(3)
        for j in range(3)
    )


class Stage(nnx.Module):
    """3 x 3 convolution without bias, BatchNorm, ReLU; in the type of its input."""

    def __init__(self, width: int, channels: int, rngs: nnx.Rngs):
        start = nnx.initializers.variance_scaling(2, "fan_out", "normal")
        shape, dtype = (3, 3, width, channels), jnp.result_type(float)
        self.kernel = nnx.Param(start(rngs.params(), shape, dtype))
        self.norm = BatchNorm(channels, dtype=dtype, rngs=rngs)
        self.norm.use_batch = True

    def __call__(self, x: Float[Array, "B m m D"], *, train: bool, mask):
        y = convolved(x, self.kernel[...].astype(x.dtype))
        return jax.nn.relu(self.norm(y, mask=mask, train=train)).astype(x.dtype)


class Classes(nnx.Module):
    """The 1 x 1 layer: weights N(0, 0.01), logits at least in float32."""

    def __init__(self, width: int, num_classes: int, rngs: nnx.Rngs):
        dtype = jnp.result_type(float)
        start = 0.01 * jax.random.normal(rngs.params(), (width, num_classes), dtype)
        self.kernel = nnx.Param(start)
        self.bias = FinalBias(jnp.zeros(num_classes, dtype))

    def __call__(self, x: Float[Array, "B m m D"]) -> Float[Array, "B m m C"]:
        x = widened(x) @ self.kernel[...]
        return x + self.bias[...].reshape(1, 1, 1, -1)


class Decoder(nnx.Module):
    """Tokens to logits on a grid that is `factor` ** (`stages` - 1) times as fine."""

    def __init__(
        self, width: int, num_classes: int, stages: int, factor: int, rngs: nnx.Rngs
    ):
        self.factor = factor
        self.norm = LayerNorm(width, dtype=jnp.result_type(float), rngs=rngs)
        widths = [width] + [CHANNELS] * (stages - 1)
        self.stages = nnx.List([Stage(w, CHANNELS, rngs) for w in widths])
        self.classes = Classes(CHANNELS, num_classes, rngs)

    def __call__(self, tokens: Float[Array, "B N D"], *, train: bool, mask):
        x = as_grid(self.norm(tokens).astype(tokens.dtype))
        for n, stage in enumerate(self.stages):
            x = enlarged(x, self.factor * x.shape[1]) if n else x
            x = stage(x, train=train, mask=mask)
        return self.classes(x)


class PupHead(DenseHead):
    """The decoder, and while training the auxiliary ones if it has them."""

    def __init__(
        self, width: int, num_classes: int, rngs: nnx.Rngs, auxiliary: bool = True
    ):
        self.decoder = Decoder(width, num_classes, 4, 2, rngs)
        several = AUXILIARY if auxiliary else ()
        self.auxiliary = nnx.List(
            [Decoder(width, num_classes, 2, 4, rngs) for _ in several]
        )

    def taps(self, depth: int) -> tuple[int, ...]:
        """Blocks 9, 14, 19 and 23 of 24, in proportion of others."""
        others = [math.ceil((n + 1) * depth / 24) - 1 for n in AUXILIARY]
        return (*others[: len(self.auxiliary)], depth - 1)

    def __call__(self, tapped, *, key=None, train=False, mask=None) -> Logits:
        own, *others = tapped[::-1]
        main = self.decoder(own, train=train, mask=mask)
        if not train:
            return Logits(main)
        pairs = zip(self.auxiliary, others[::-1], strict=True)
        return Logits(main, tuple(d(x, train=train, mask=mask) for d, x in pairs))


class LinearDenseHead(DenseHead):
    """BatchNorm and a 1 x 1 layer on the last block's tokens."""

    def __init__(self, width: int, num_classes: int, rngs: nnx.Rngs):
        self.norm = BatchNorm(width, dtype=jnp.result_type(float), rngs=rngs)
        self.norm.use_batch = True
        self.classes = Classes(width, num_classes, rngs)

    def taps(self, depth: int) -> tuple[int, ...]:
        """The last block."""
        return (depth - 1,)

    def __call__(self, tapped, *, key=None, train=False, mask=None) -> Logits:
        [tokens] = tapped
        x = as_grid(self.norm(tokens, mask=mask, train=train))
        return Logits(self.classes(x))


HEADS = {
    "pup": PupHead,
    "pup_alone": functools.partial(PupHead, auxiliary=False),
    "linear": LinearDenseHead,
}
"""By name; 'pup_alone' is what is left of 'pup' when it is trained."""


def as_grid(tokens: Float[Array, "B N D"]) -> Float[Array, "B g g D"]:
    """The tokens of a square image, row by row."""
    side = math.isqrt(tokens.shape[1])
    return tokens.reshape(len(tokens), side, side, -1)


def enlarged(x: Float[Array, "B m m D"], size: int) -> Float[Array, "B s s D"]:
    """Bilinear, to `size` points a side."""
    rows = matrix(x.shape[1], size).astype(x.dtype)
    x = jnp.einsum("yi,bijd->byjd", rows, x)
    return jnp.einsum("xj,byjd->byxd", rows, x)
