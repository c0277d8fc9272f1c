"""Prompts that are patches of pixels (paper, section 4.3: prepend in pixel space).

    before block 0   [CLS, patches] -> [CLS, patch_embed(P patches of pixels), patches]

Source: locations `prepend-pixel*` of `vit_ablations.py:112-131,215-225` of the public
code: shallow, without dropout.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.data import preprocess
from vpt_jax.errors import UserError
from vpt_jax.methods.prompt import Prompt, group, uniform_bound
from vpt_jax.model import Context, Edit, Model
from vpt_jax.types import Tree

__all__ = ["PixelConfig", "attach", "group"]

PIXELS = ("uniform", "gaussian", "imagenet")


@dataclasses.dataclass(frozen=True)
class PixelConfig:
    """Options of pixel prompts.

    Attributes:
        length: P, patches.
        pixels: 'uniform' in the bound of `prompt`, 'gaussian' of deviation 1, or
            'imagenet': uniform in [0, 1], normalised with ImageNet's mean and deviation
            on every pass.
    """

    length: int = 10
    pixels: str = "uniform"

    def __post_init__(self):
        if self.length < 1:
            raise UserError(f"method.length {self.length} must be at least 1 token")
        if self.pixels not in PIXELS:
            raise UserError(
                f"method.pixels {self.pixels!r} is unknown; known: {', '.join(PIXELS)}"
            )


class PixelPrompts(Edit):
    """P patches of pixels that the backbone's own patch embedding embeds."""

    def __init__(self, model: Model, config: PixelConfig, rngs: nnx.Rngs):
        backbone = model.backbone
        if not isinstance(backbone.config, ViTConfig):
            raise UserError(
                f"method prompt_pixel needs a ViT; {type(backbone).__name__} is none"
            )
        patch, key = backbone.config.patch, rngs.params()
        shape = (config.length, patch, patch, 3)
        bound = uniform_bound(backbone, backbone.width)
        self.num_prefix = backbone.num_prefix
        self.normalised = config.pixels == "imagenet"
        self.patches = Prompt(
            {
                "uniform": lambda: jax.random.uniform(
                    key, shape, minval=-bound, maxval=bound
                ),
                "gaussian": lambda: jax.random.normal(key, shape),
                "imagenet": lambda: jax.random.uniform(key, shape),
            }[config.pixels]()
        )

    def layer(self, i: int) -> tuple[str, Tree] | None:
        """Only the first block sees new tokens."""
        return ("insert", self.patches[...]) if i == 0 else None

    def change(
        self, name: str, tensors: Tree, tokens: Float[Array, "B N D"], context: Context
    ) -> Float[Array, "B M D"]:
        """Embed the patches and insert them behind the prefix."""
        patches = tensors
        if self.normalised:
            patches = preprocess.normalize(255 * patches, preprocess.PRESETS["vpt"])
        prompt = context.backbone.patch_embed(patches.astype(tokens.dtype))
        shape = (tokens.shape[0], len(patches), tokens.shape[-1])
        prompt = jnp.broadcast_to(prompt.reshape(shape[1:]), shape)
        before, after = tokens[:, : self.num_prefix], tokens[:, self.num_prefix :]
        return jnp.concatenate([before, prompt, after], axis=1)


def attach(model: Model, config: PixelConfig, rngs: nnx.Rngs) -> None:
    """Add the patches as an edit."""
    model.add_edit("prompt", PixelPrompts(model, config, rngs))
