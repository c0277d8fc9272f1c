"""Plain networks that know nothing of tuning.

A backbone offers

    config                        its shape, a dataclass; `problem(image_size)`
    width                         D of the features
    embed(images, key, train)     -> tokens; 3 channels, more with prompts below
    pieces[i](tokens, read, key, train)    -> the tokens of the slice `read`
    blocks                        those of `pieces` that are layers; each has `width`,
                                  the D that it sees
    reads                         the slice of tokens of which `pool` makes the features
    pool(tokens)                  -> features
    num_prefix                    tokens before those of the image
    has_statistics                whether it has BatchNorm; then `embed` and `pieces`
                                  take `mask` too, 0 for images that do not count

Where a backbone has stages, `stages[s].blocks[i]` are its blocks, and what is between
two stages is a piece but no block. The tokens of convolutional backbones are feature
maps (B, h, w, D).

A new family is one file and one line below.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from vpt_jax.backbones import (
    clip,
    convnext,
    dinov2,
    dinov3,
    eva02,
    mae,
    moco,
    pe,
    resnet,
    siglip,
    swin,
    vit,
)
from vpt_jax.errors import UserError

FAMILIES = {
    vit.ViTConfig: vit.ViT,
    mae.MAEConfig: mae.MAE,
    moco.MoCoConfig: moco.MoCo,
    dinov2.DINOv2Config: dinov2.DINOv2,
    clip.CLIPConfig: clip.CLIP,
    siglip.SigLIPConfig: siglip.SigLIP,
    dinov3.DINOv3Config: dinov3.DINOv3,
    pe.PEConfig: pe.PE,
    eva02.EVA02Config: eva02.EVA02,
    swin.SwinConfig: swin.Swin,
    convnext.ConvNeXtConfig: convnext.ConvNeXt,
    resnet.ResNetConfig: resnet.ResNet,
}
CONFIGS = {
    **vit.CONFIGS,
    **mae.CONFIGS,
    **moco.CONFIGS,
    **dinov2.CONFIGS,
    **clip.CONFIGS,
    **siglip.CONFIGS,
    **dinov3.CONFIGS,
    **pe.CONFIGS,
    **eva02.CONFIGS,
    **swin.CONFIGS,
    **convnext.CONFIGS,
    **resnet.CONFIGS,
}


def get_config(name: str, image_size: int | None = None):
    """The shape of backbone `name`, for images of `image_size` px (None: its own)."""
    if name not in CONFIGS:
        raise UserError(f"unknown backbone {name!r}; known: {', '.join(CONFIGS)}")
    config = CONFIGS[name]
    if image_size is None:
        return config
    problem = config.problem(image_size)
    if problem:
        raise UserError(f"image_size {image_size} {problem} of {name}")
    return dataclasses.replace(config, image_size=image_size)


class _OneKey(nnx.Rngs):
    """Stands for `nnx.Rngs` where values do not matter.

    The counter of a traced `nnx.Rngs` takes time quadratic in the number of layers.
    """

    def __init__(self):
        """No streams."""

    def params(self):
        return jax.random.key(0)


def abstract(config, dtype=jnp.float32):
    """The backbone of `config` with shapes in place of arrays: nothing is allocated."""
    family = FAMILIES[type(config)]
    return nnx.eval_shape(lambda: family(config, dtype=dtype, rngs=_OneKey()))
