"""Swin Transformer (Liu et al., ICCV 2021, arXiv 2103.14030).

    tokens: B, P + h*w, D; D doubles and h, w halve from stage to stage

The P tokens before those of the image (none in the plain network) have no place in it.
They join every window of their own image without position bias or mask, leave with
the mean over its windows, and are copied four times where patches merge.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Shaped

from vpt_jax.backbones import kernels, tpu_attention
from vpt_jax.backbones.layers import DropPath, LayerNorm, Mlp, PatchEmbed
from vpt_jax.types import Key, fold, widened

EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class SwinConfig:
    """The shape of a Swin Transformer; sizes in pixels and channels.

    Attributes:
        embed_dim: D of the first stage.
        depths, heads: Per stage.
        window: Side of a window in tokens; a smaller stage is one window.
        dropout, drop_path: Rates for training all of it. 0.5 for B is that of the
            release on ImageNet-1k and of the public VPT code, which takes it for L too
            (`build_vit_backbone.py:204,335`); 0.2 for L is that of the release on
            ImageNet-22k, where B has it as well (`configs/swin/*_22k.yaml`).
    """

    dropout: ClassVar[float] = 0.0

    embed_dim: int
    depths: Sequence[int]
    heads: Sequence[int]
    window: int = 7
    patch: int = 4
    image_size: int = 224
    drop_path: float = 0.2

    def side(self, stage: int) -> int:
        """Tokens along one side of the image in a stage."""
        return self.image_size // self.patch // 2**stage

    def problem(self, image_size: int) -> str | None:
        """What is wrong with images of `image_size` px."""
        sized = dataclasses.replace(self, image_size=image_size)
        last = len(self.depths) - 1
        sides = [sized.side(stage) for stage in range(last + 1)]
        if (
            image_size % (self.patch * 2**last)
            or sides[-1] < 1
            or any(side > self.window and side % self.window for side in sides)
        ):
            return (
                f"does not divide into the {self.window} x {self.window} windows of "
                f"{self.patch} px patches in every stage"
            )
        return None


class WindowAttention(nnx.Module):
    """Self-attention within windows, with a learned bias per relative position."""

    def __init__(self, width: int, heads: int, window: int, *, dtype, rngs: nnx.Rngs):
        self.heads, self.window = heads, window
        self.query = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.key = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.value = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.position_bias = nnx.Param(
            nnx.initializers.truncated_normal(0.02)(
                rngs.params(), ((2 * window - 1) ** 2, heads)
            )
        )

    @jax.named_scope("projections")
    def __call__(
        self, x: Float[Array, "B W N D"], mask: Float[Array, "W M M"] | None
    ) -> Float[Array, "B W N D"]:
        """Attend within each of W windows; `mask` is added to the image tokens' scores.

        The last M = window^2 tokens are those of the image.
        """
        q, k, v = self.query(x), self.key(x), self.value(x)
        q, k, v = (y.reshape(*y.shape[:3], self.heads, -1) for y in (q, k, v))
        fits = tpu_attention.fits(_merged(q), _merged(k))
        on_tpu = _attend_by_kernel if fits else _attend
        inputs = q, k, v, self._bias(x.shape[2], mask)
        y = kernels.by_platform(*inputs, tpu=on_tpu, default=_attend)
        return self.out(y.reshape(x.shape))

    def _bias(self, num_tokens: int, mask) -> Float[Array, "1 W H N N"]:
        """Position bias and mask, zero for what stands before the image tokens."""
        bias = widened(self.position_bias[...])[relative_positions(self.window)]
        bias = bias.transpose(2, 0, 1)[None, None]  # 1 1 H M M
        if mask is not None:
            bias = bias + mask[None, :, None]
        extra = num_tokens - bias.shape[-1]
        return jnp.pad(bias, ((0, 0),) * 3 + ((extra, 0),) * 2)


@jax.named_scope("attend")
def _attend(
    query: Float[Array, "B W N H K"],
    key: Float[Array, "B W N H K"],
    value: Float[Array, "B W N H K"],
    bias: Float[Array, "1 #W H N N"],
) -> Float[Array, "B W N H K"]:
    """softmax(q k^T / sqrt(K) + bias) v per window and head, the softmax in float32;
    a bias of one window is that of all."""
    scaled = query * (query.shape[-1] ** -0.5)
    scores = jnp.einsum("bwnhk,bwmhk->bwhnm", scaled, key)
    weights = jax.nn.softmax(widened(scores) + bias).astype(value.dtype)
    return jnp.einsum("bwhnm,bwmhk->bwnhk", weights, value)


@jax.custom_vjp
def _attend_by_kernel(query, key, value, bias):
    return _kernel_forward(query, key, value, bias)[0]


@jax.named_scope("attend")
def _kernel_forward(query, key, value, bias):
    q, k, v = (_merged(x) for x in (query, key, value))
    out, saved = tpu_attention.forward(q, k, v, bias[0])
    return out.reshape(query.shape), (saved, query, key, value, bias)


@jax.named_scope("attend")
def _kernel_backward(saved, dout):
    saved, query, key, value, bias = saved
    found = tpu_attention.backward(saved, _merged(dout), bias[0])
    # Where the bias is frozen, nobody uses its gradient and XLA leaves it out.
    _, of_bias = jax.vjp(functools.partial(_attend, query, key, value), bias)
    return *(x.reshape(query.shape) for x in found), *of_bias(dout)


_attend_by_kernel.defvjp(_kernel_forward, _kernel_backward)


def _merged(x: Float[Array, "B W N H K"]) -> Float[Array, "BW N H K"]:
    return x.reshape(-1, *x.shape[2:])


class SwinBlock(nnx.Module):
    """x + attn(norm1(x)) within windows, then x + mlp(norm2(x))."""

    def __init__(
        self, config: SwinConfig, stage: int, index: int, *, dtype, rngs: nnx.Rngs
    ):
        self.width = width = config.embed_dim * 2**stage
        side = config.side(stage)
        window = min(config.window, side)
        self.side, self.window = side, window
        # Every second block's windows are shifted by half, where there are several.
        self.shift = window // 2 if index % 2 and side > window else 0
        self.norm1 = LayerNorm(width, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.attn = WindowAttention(
            width, config.heads[stage], window, dtype=dtype, rngs=rngs
        )
        self.norm2 = LayerNorm(width, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(width, 4 * width, dtype=dtype, rngs=rngs)
        self.drop_path = DropPath()

    def __call__(
        self,
        x: Float[Array, "B N D"],
        read: slice = slice(None),
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> Float[Array, "B M D"]:
        """The tokens in `read` after this block."""
        branch = self._attend(self.norm1(x))
        x = x + self.drop_path(branch, key=fold(key, 2), train=train)
        x = x[:, read]
        branch = self.mlp(self.norm2(x), key=key, train=train)
        return x + self.drop_path(branch, key=fold(key, 3), train=train)

    def _attend(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        batch, width = x.shape[0], x.shape[-1]
        extra, image = split_image(x, self.side)
        image = jnp.roll(image, (-self.shift, -self.shift), (1, 2))
        image = to_windows(image, self.window)  # B W M D
        num_windows, extra_tokens = image.shape[1], extra.shape[1]
        shape = (batch, num_windows, extra_tokens, width)
        extra = jnp.broadcast_to(extra[:, None], shape)
        mask = None
        if self.shift:
            mask = jnp.asarray(shift_mask(self.side, self.window, self.shift))
        x = self.attn(jnp.concatenate([extra, image], axis=2), mask)
        extra, image = x[:, :, :extra_tokens].mean(axis=1), x[:, :, extra_tokens:]
        image = from_windows(image, self.side)
        image = jnp.roll(image, (self.shift, self.shift), (1, 2))
        return jnp.concatenate([extra, image.reshape(batch, -1, width)], axis=1)


class Merging(nnx.Module):
    """Each 2 x 2 tokens become one of twice the width."""

    def __init__(self, config: SwinConfig, stage: int, *, dtype, rngs: nnx.Rngs):
        width = config.embed_dim * 2**stage
        self.side = config.side(stage)
        self.norm = LayerNorm(4 * width, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.reduction = nnx.Linear(
            4 * width, 2 * width, use_bias=False, dtype=dtype, rngs=rngs
        )

    def __call__(
        self,
        x: Float[Array, "B N D"],
        read: slice = slice(None),
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> Float[Array, "B M E"]:
        """The tokens in `read` after merging."""
        batch, half = x.shape[0], self.side // 2
        extra, image = split_image(x, self.side)
        image = image.reshape(batch, half, 2, half, 2, -1)
        image = image.transpose(0, 1, 3, 4, 2, 5)  # column before row, as released
        image = image.reshape(batch, half**2, -1)
        x = jnp.concatenate([jnp.tile(extra, (1, 1, 4)), image], axis=1)
        return self.reduction(self.norm(x[:, read]))


class Stage(nnx.Module):
    """Blocks at one resolution, and the merging after all but the last stage."""

    def __init__(self, config: SwinConfig, stage: int, *, dtype, rngs: nnx.Rngs):
        self.blocks = nnx.List(
            [
                SwinBlock(config, stage, index, dtype=dtype, rngs=rngs)
                for index in range(config.depths[stage])
            ]
        )
        self.merging = nnx.data(None)
        if stage + 1 < len(config.depths):
            self.merging = Merging(config, stage, dtype=dtype, rngs=rngs)


class Swin(nnx.Module):
    """A backbone; its features are the mean of all tokens after the final norm."""

    num_prefix = 0
    reads = slice(None)
    has_statistics = False

    def __init__(self, config: SwinConfig, *, dtype=jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.dtype = dtype
        patch, width = (config.patch, config.patch), config.embed_dim
        self.patch_embed = PatchEmbed(
            3, width, patch, patch, padding="VALID", dtype=dtype, rngs=rngs
        )
        self.patch_norm = LayerNorm(width, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.dropout = nnx.Dropout(0.0)
        self.stages = nnx.List(
            [
                Stage(config, stage, dtype=dtype, rngs=rngs)
                for stage in range(len(config.depths))
            ]
        )
        self.norm = LayerNorm(self.width, epsilon=EPSILON, dtype=dtype, rngs=rngs)

    @property
    def width(self) -> int:
        """D of the features that `pool` returns."""
        return self.config.embed_dim * 2 ** (len(self.config.depths) - 1)

    @property
    def blocks(self) -> list[SwinBlock]:
        """The blocks of all stages in order."""
        return [block for stage in self.stages for block in stage.blocks]

    @property
    def pieces(self) -> list[SwinBlock | Merging]:
        """The blocks, and the merging after all stages but the last."""
        pieces = []
        for stage in self.stages:
            pieces += [*stage.blocks]
            if stage.merging is not None:
                pieces.append(stage.merging)
        return pieces

    def embed(
        self,
        images: Float[Array, "B h w c"],
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> Float[Array, "B N D"]:
        """Normalised images to patches."""
        x = self.patch_embed(images.astype(self.dtype))  # B h/p w/p D
        x = self.patch_norm(x.reshape(x.shape[0], -1, x.shape[-1]))
        return self.dropout(x, deterministic=not train, rngs=fold(key, 0))

    def pool(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B D"]:
        """The mean of the tokens, each after the final norm."""
        return self.norm(tokens).mean(axis=1)


def split_image(x: Float[Array, "B N D"], side: int):
    """(B, P, D) before the image tokens, and those as (B, side, side, D)."""
    extra = x.shape[1] - side**2
    return x[:, :extra], x[:, extra:].reshape(x.shape[0], side, side, -1)


def to_windows(x: Shaped[Array, "B h w D"], window: int) -> Shaped[Array, "B W M D"]:
    """Part an image into windows of window^2 tokens, row by row."""
    batch, side, _, width = x.shape
    count = side // window
    x = x.reshape(batch, count, window, count, window, width)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, count**2, window**2, width)


def from_windows(x: Float[Array, "B W M D"], side: int) -> Float[Array, "B h w D"]:
    """The inverse of `to_windows`."""
    batch, count, window, width = x.shape
    count, window = round(count**0.5), round(window**0.5)
    x = x.reshape(batch, count, count, window, window, width)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, side, side, width)


def relative_positions(window: int) -> np.ndarray:
    """(M, M) index of the bias between each two tokens of a window."""
    row, column = np.divmod(np.arange(window**2), window)
    down = row[:, None] - row[None] + window - 1
    right = column[:, None] - column[None] + window - 1
    return down * (2 * window - 1) + right


def shift_mask(side: int, window: int, shift: int) -> np.ndarray:
    """(W, M, M): -100 between tokens that only the cyclic shift brought together."""
    position = np.arange(side)
    region = (position >= side - window).astype(int) + (position >= side - shift)
    region = (3 * region[:, None] + region[None])[None, ..., None]
    count = side // window
    region = region.reshape(count, window, count, window)
    region = region.transpose(0, 2, 1, 3).reshape(count**2, window**2)
    return np.where(region[:, :, None] == region[:, None], 0.0, -100.0)


def _swin(embed_dim: int, depth: int, heads: int, **kwargs) -> SwinConfig:
    """`depth` blocks in the third stage, `heads` in the first."""
    each = tuple(heads * 2**stage for stage in range(4))
    return SwinConfig(embed_dim, (2, 2, depth, 2), each, **kwargs)


CONFIGS = {
    "swin_t": _swin(96, 6, 3),
    "swin_s": _swin(96, 18, 3, drop_path=0.3),
    "swin_b": _swin(128, 18, 4, drop_path=0.5),
    "swin_l": _swin(192, 18, 6),
    "swin_b_384": _swin(128, 18, 4, window=12, image_size=384, drop_path=0.5),
    "swin_l_384": _swin(192, 18, 6, window=12, image_size=384),
}
