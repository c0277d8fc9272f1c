"""Trained channels below the image's own (paper, section 4.3: concatenate channels).

    images (B, h, w, 3) -> (B, h, w, 3 + P), and a first convolution that takes them

Source: `vit_ablations.py:64-79,260-266,481` of the public code: the whole patch
embedding is trained, its part for the image starts as pre-trained. On a convolutional
backbone (`resnet.py:74-88,210-288`) the channels are pixels in [0, 1], normalised like
a grey image on every pass; a BatchNorm behind the convolution is trained with it.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.data import preprocess
from vpt_jax.errors import UserError
from vpt_jax.methods.prompt import Prompt, uniform_bound
from vpt_jax.model import Context, Edit, Model
from vpt_jax.types import Backbone, Path


@dataclasses.dataclass(frozen=True)
class BelowConfig:
    """Options of prompt channels.

    Attributes:
        length: P, channels.
    """

    length: int = 10

    def __post_init__(self):
        if self.length < 1:
            raise UserError(f"method.length {self.length} must be at least 1 channel")


class Channels(Edit):
    """P channels of the size of the image.

    Attributes:
        pixels: Whether they are in [0, 1] and normalised on every pass.
    """

    def __init__(self, model: Model, config: BelowConfig, rngs: nnx.Rngs):
        backbone = model.backbone
        side, key = backbone.config.image_size, rngs.params()
        self.pixels = not hasattr(backbone.config, "patch")
        low, high = 0.0, 1.0
        if not self.pixels:
            high = uniform_bound(backbone, backbone.patch_embed.out_features)
            low = -high
        shape = (side, side, config.length)
        self.channels = Prompt(jax.random.uniform(key, shape, minval=low, maxval=high))

    def on_images(
        self, images: Float[Array, "B h w 3"], context: Context
    ) -> Float[Array, "B h w C"]:
        """Append the channels."""
        channels = self.channels[...]
        if self.pixels:
            preset = preprocess.PRESETS["vpt"]
            channels = (channels - np.mean(preset.mean)) / np.mean(preset.std)
        channels = channels.astype(images.dtype)
        channels = jnp.broadcast_to(channels, (images.shape[0], *channels.shape))
        return jnp.concatenate([images, channels], axis=-1)


def attach(model: Model, config: BelowConfig, rngs: nnx.Rngs) -> None:
    """Add the channels as an edit and widen the first convolution."""
    backbone = model.backbone
    name = _first(backbone)
    old = getattr(backbone, name, None)
    if not isinstance(old, nnx.Conv):
        raise UserError(
            f"method prompt_below finds no plain {name} in {type(backbone).__name__}; "
            "name it before methods that wrap layers"
        )
    wide = type(old)(
        3 + config.length,
        old.out_features,
        old.kernel_size,
        old.strides,
        padding=old.padding,
        use_bias=old.bias is not None,
        dtype=old.dtype,
        param_dtype=jnp.result_type(float),
        rngs=rngs,
    )
    edit = Channels(model, config, rngs)
    *patch, _, width = old.kernel.shape
    if edit.pixels:
        bound = math.sqrt(6 / (math.prod(patch) * (3 + config.length + width)))
    else:
        bound = uniform_bound(backbone, width)
    new = jax.random.uniform(
        rngs.params(), (*patch, config.length, width), minval=-bound, maxval=bound
    )
    kernel = old.kernel[...]
    wide.kernel[...] = jnp.concatenate([kernel, new.astype(kernel.dtype)], axis=2)
    if wide.bias is not None and old.bias is not None:
        wide.bias[...] = old.bias[...]
    setattr(backbone, name, wide)
    if backbone.has_statistics:
        backbone.stem_norm.use_batch = True
    model.add_edit("below", edit)


def _first(backbone: Backbone) -> str:
    """The name of the first convolution."""
    return "patch_embed" if hasattr(backbone.config, "patch") else "stem"


def group(path: Path, variable: nnx.Variable, config: BelowConfig, model: Model):
    """The channels, the first convolution and the head are trained."""
    tuned = {_first(model.backbone)}
    if model.backbone.has_statistics:
        tuned.add("stem_norm")
    first = path[0] == "backbone" and path[1] in tuned
    if path[0] == "head" or path[:2] == ("edits", "below") or first:
        return "stats" if isinstance(variable, nnx.BatchStat) else "trainable"
    return "frozen"
