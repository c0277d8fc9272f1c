"""ResNet (He et al., CVPR 2016, arXiv 1512.03385) in torchvision's layout.

tokens: feature maps, B h w D. The stride of a bottleneck is in its 3 x 3 convolution.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.backbones.layers import BatchNorm
from vpt_jax.types import Key


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """The shape of a ResNet.

    Attributes:
        depths: Blocks per stage.
        bottleneck: Blocks of three convolutions with four times the output channels,
            or of two.
        planes: Inner channels per stage.
        stem: Channels of the first convolution.
    """

    depths: Sequence[int]
    bottleneck: bool = True
    planes: Sequence[int] = (64, 128, 256, 512)
    stem: int = 64
    image_size: int = 224

    dropout: ClassVar[float] = 0.0
    drop_path: ClassVar[float] = 0.0

    @property
    def expansion(self) -> int:
        """Output channels of a block per inner channel."""
        return 4 if self.bottleneck else 1

    def problem(self, image_size: int) -> str | None:
        """What is wrong with images of `image_size` px."""
        return "is less than the 32 px stride" if image_size < 32 else None


def _conv(width: int, out: int, size: int, stride: int, **kwargs) -> nnx.Conv:
    """Without bias, padded as PyTorch does on both sides alike."""
    kernel, strides = (size, size), (stride, stride)
    return nnx.Conv(
        width, out, kernel, strides, padding=size // 2, use_bias=False, **kwargs
    )


class ResNetBlock(nnx.Module):
    """relu(shortcut(x) + convolutions with BatchNorm and relu between).

    Convolutions are 1 x 1, 3 x 3, 1 x 1 in a bottleneck and else twice 3 x 3.
    """

    def __init__(
        self, width: int, planes: int, stride: int, bottleneck: bool, **kwargs
    ):
        self.width = width
        out = planes * (4 if bottleneck else 1)
        sizes = [(1, 1), (3, stride), (1, 1)] if bottleneck else [(3, stride), (3, 1)]
        channels = [width, *[planes] * (len(sizes) - 1), out]
        self.convs = nnx.List(
            [
                _conv(channels[i], channels[i + 1], size, stride, **kwargs)
                for i, (size, stride) in enumerate(sizes)
            ]
        )
        self.norms = nnx.List([BatchNorm(c, **kwargs) for c in channels[1:]])
        self.shortcut = self.shortcut_norm = nnx.data(None)
        if stride > 1 or width != out:
            self.shortcut = _conv(width, out, 1, stride, **kwargs)
            self.shortcut_norm = BatchNorm(out, **kwargs)

    def __call__(
        self,
        x: Float[Array, "B h w D"],
        read: slice = slice(None),
        *,
        key: Key | None = None,
        train: bool = False,
        mask: Float[Array, " B"] | None = None,
    ) -> Float[Array, "B r v E"]:
        """The feature map after this block, rows in `read`."""
        branch, last = x, len(self.convs) - 1
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            branch = norm(conv(branch), mask, train)
            branch = branch if i == last else jax.nn.relu(branch)
        if self.shortcut is not None and self.shortcut_norm is not None:
            x = self.shortcut_norm(self.shortcut(x), mask, train)
        return jax.nn.relu(x + branch)[:, read]


class Stage(nnx.Module):
    """Blocks at one resolution; the first steps down to it."""

    def __init__(self, config: ResNetConfig, stage: int, *, dtype, rngs: nnx.Rngs):
        planes = config.planes[stage]
        out = planes * config.expansion
        width = config.planes[stage - 1] * config.expansion if stage else config.stem
        self.blocks = nnx.List(
            [
                ResNetBlock(
                    out if index else width,
                    planes,
                    2 if stage and not index else 1,
                    config.bottleneck,
                    dtype=dtype,
                    rngs=rngs,
                )
                for index in range(config.depths[stage])
            ]
        )


class ResNet(nnx.Module):
    """A backbone; its features are the mean over positions."""

    num_prefix = 0
    reads = slice(None)
    has_statistics = True

    def __init__(self, config: ResNetConfig, *, dtype=jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.dtype = dtype
        self.stem = _conv(3, config.stem, 7, 2, dtype=dtype, rngs=rngs)
        self.stem_norm = BatchNorm(config.stem, dtype=dtype, rngs=rngs)
        self.stages = nnx.List(
            [
                Stage(config, stage, dtype=dtype, rngs=rngs)
                for stage in range(len(config.depths))
            ]
        )

    @property
    def width(self) -> int:
        """D of the features that `pool` returns."""
        return self.config.planes[-1] * self.config.expansion

    @property
    def blocks(self) -> list[ResNetBlock]:
        """The blocks of all stages in order."""
        return [block for stage in self.stages for block in stage.blocks]

    @property
    def pieces(self) -> list[ResNetBlock]:
        """The blocks, the first of a stage steps down to it."""
        return self.blocks

    def embed(
        self,
        images: Float[Array, "B h w c"],
        *,
        key: Key | None = None,
        train: bool = False,
        mask: Float[Array, " B"] | None = None,
    ) -> Float[Array, "B i j D"]:
        """Normalised images to the first feature map."""
        x = self.stem(images.astype(self.dtype))
        x = jax.nn.relu(self.stem_norm(x, mask, train))
        edge = ((1, 1), (1, 1))  # flax takes it, whatever its hint says
        return nnx.max_pool(x, (3, 3), (2, 2), padding=edge)  # pyright: ignore

    def pool(self, tokens: Float[Array, "B h w D"]) -> Float[Array, "B D"]:
        """The mean over positions."""
        return tokens.mean(axis=(1, 2))


CONFIGS = {
    "resnet18": ResNetConfig((2, 2, 2, 2), bottleneck=False),
    "resnet34": ResNetConfig((3, 4, 6, 3), bottleneck=False),
    "resnet50": ResNetConfig((3, 4, 6, 3)),
    "resnet101": ResNetConfig((3, 4, 23, 3)),
    "resnet152": ResNetConfig((3, 8, 36, 3)),
}
