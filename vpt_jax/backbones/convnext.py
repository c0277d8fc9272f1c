"""ConvNeXt (Liu et al., CVPR 2022, arXiv 2201.03545).

tokens: feature maps, B h w D
stem: 4 x 4 patches; between stages: norm, then 2 x 2 patches
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.backbones.layers import DropPath, LayerNorm, Mlp, PatchEmbed
from vpt_jax.types import Key, fold


@dataclasses.dataclass(frozen=True)
class ConvNeXtConfig:
    """The shape of a ConvNeXt: blocks and channels per stage."""

    depths: Sequence[int]
    widths: Sequence[int]
    image_size: int = 224

    dropout: ClassVar[float] = 0.0
    drop_path: ClassVar[float] = 0.0

    def problem(self, image_size: int) -> str | None:
        """What is wrong with images of `image_size` px."""
        return "is less than the 32 px stride" if image_size < 32 else None


class ConvNeXtBlock(nnx.Module):
    """x + gamma mlp(norm(7 x 7 depthwise convolution of x))."""

    def __init__(self, width: int, *, dtype, rngs: nnx.Rngs):
        self.width = width
        self.conv = nnx.Conv(
            width,
            width,
            (7, 7),
            padding=3,
            feature_group_count=width,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = LayerNorm(width, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(width, 4 * width, dtype=dtype, rngs=rngs)
        self.gamma = nnx.Param(jnp.full(width, 1e-6))
        self.drop_path = DropPath()

    def __call__(
        self,
        x: Float[Array, "B h w D"],
        read: slice = slice(None),
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> Float[Array, "B r w D"]:
        """The feature map after this block, rows in `read`."""
        branch = self.mlp(self.norm(self.conv(x)), key=key, train=train)
        branch = branch * self.gamma[...].astype(x.dtype)[None, None, None]
        return (x + self.drop_path(branch, key=fold(key, 2), train=train))[:, read]


class Downsample(nnx.Module):
    """Norm, then a convolution of 2 x 2 patches."""

    def __init__(self, width: int, out: int, *, dtype, rngs: nnx.Rngs):
        self.norm = LayerNorm(width, dtype=dtype, rngs=rngs)
        self.conv = PatchEmbed(
            width, out, (2, 2), (2, 2), padding="VALID", dtype=dtype, rngs=rngs
        )

    def __call__(
        self,
        x: Float[Array, "B h w D"],
        read: slice = slice(None),
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> Float[Array, "B i j E"]:
        """The smaller feature map, rows in `read`."""
        return self.conv(self.norm(x))[:, read]


class Stage(nnx.Module):
    """The step down from the stage before (none for the first), then blocks."""

    def __init__(self, config: ConvNeXtConfig, stage: int, *, dtype, rngs: nnx.Rngs):
        width = config.widths[stage]
        self.downsample = nnx.data(None)
        if stage:
            before = config.widths[stage - 1]
            self.downsample = Downsample(before, width, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List(
            [
                ConvNeXtBlock(width, dtype=dtype, rngs=rngs)
                for _ in range(config.depths[stage])
            ]
        )


class ConvNeXt(nnx.Module):
    """A backbone; its features are the final norm of the mean over positions."""

    num_prefix = 0
    reads = slice(None)
    has_statistics = False

    def __init__(self, config: ConvNeXtConfig, *, dtype=jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.dtype = dtype
        width = config.widths[0]
        self.stem = PatchEmbed(
            3, width, (4, 4), (4, 4), padding="VALID", dtype=dtype, rngs=rngs
        )
        self.stem_norm = LayerNorm(width, dtype=dtype, rngs=rngs)
        self.stages = nnx.List(
            [
                Stage(config, stage, dtype=dtype, rngs=rngs)
                for stage in range(len(config.depths))
            ]
        )
        self.norm = LayerNorm(self.width, dtype=dtype, rngs=rngs)

    @property
    def width(self) -> int:
        """D of the features that `pool` returns."""
        return self.config.widths[-1]

    @property
    def blocks(self) -> list[ConvNeXtBlock]:
        """The blocks of all stages in order."""
        return [block for stage in self.stages for block in stage.blocks]

    @property
    def pieces(self) -> list[ConvNeXtBlock | Downsample]:
        """The blocks, and the step down before all stages but the first."""
        pieces = []
        for stage in self.stages:
            if stage.downsample is not None:
                pieces.append(stage.downsample)
            pieces += [*stage.blocks]
        return pieces

    def embed(
        self,
        images: Float[Array, "B h w c"],
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> Float[Array, "B i j D"]:
        """Normalised images to the first feature map."""
        return self.stem_norm(self.stem(images.astype(self.dtype)))

    def pool(self, tokens: Float[Array, "B h w D"]) -> Float[Array, "B D"]:
        """The norm of the mean over positions."""
        return self.norm(tokens.mean(axis=(1, 2)))


CONFIGS = {
    "convnext_t": ConvNeXtConfig((3, 3, 9, 3), (96, 192, 384, 768)),
    "convnext_s": ConvNeXtConfig((3, 3, 27, 3), (96, 192, 384, 768)),
    "convnext_b": ConvNeXtConfig((3, 3, 27, 3), (128, 256, 512, 1024)),
    "convnext_l": ConvNeXtConfig((3, 3, 27, 3), (192, 384, 768, 1536)),
    "convnext_xl": ConvNeXtConfig((3, 3, 27, 3), (256, 512, 1024, 2048)),
}
