"""A trained frame of pixels around the image (paper, section 4.3: pad).

    images (B, h, w, 3) -> (B, h + 2p, w + 2p, 3)

Source: `vit_ablations.py:81-95,244-258` of the public code. The frame starts uniform
in [0, 1] and is normalised with ImageNet's mean and deviation on every pass.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.data import preprocess
from vpt_jax.errors import UserError
from vpt_jax.methods.prompt import Prompt
from vpt_jax.model import Context, Edit, Model
from vpt_jax.types import Path


@dataclasses.dataclass(frozen=True)
class PadConfig:
    """Options of the frame.

    Attributes:
        padding: p, its width in pixels; patches must divide the image and the frame.
    """

    padding: int = 8

    def __post_init__(self):
        if self.padding < 1:
            raise UserError(f"method.padding {self.padding} must be at least 1 pixel")


class Frame(Edit):
    """The pixels above and below, and those at the left and right."""

    def __init__(self, model: Model, config: PadConfig, rngs: nnx.Rngs):
        self.padding = p = config.padding
        outer = model.backbone.config.image_size
        shapes = (2 * p, outer, 3), (outer - 2 * p, 2 * p, 3)
        rows, columns = (jax.random.uniform(rngs.params(), shape) for shape in shapes)
        self.top_bottom, self.left_right = Prompt(rows), Prompt(columns)

    def on_images(
        self, images: Float[Array, "B h w 3"], context: Context
    ) -> Float[Array, "B H W 3"]:
        """Surround the images."""
        rows, columns = (
            preprocess.normalize(255 * pixels[...][None], preprocess.PRESETS["vpt"])
            for pixels in (self.top_bottom, self.left_right)
        )
        rows, columns = (
            jnp.broadcast_to(x, (images.shape[0], *x.shape[1:]))
            for x in (rows, columns)
        )
        p = self.padding
        images = jnp.concatenate([columns[:, :, :p], images, columns[:, :, p:]], axis=2)
        return jnp.concatenate([rows[:, :p], images, rows[:, p:]], axis=1)


def image_size(config: PadConfig, image_size: int) -> int:
    """The backbone sees the image with its frame."""
    return image_size + 2 * config.padding


def attach(model: Model, config: PadConfig, rngs: nnx.Rngs) -> None:
    """Add the frame as an edit."""
    model.add_edit("pad", Frame(model, config, rngs))


def not_dense(config: PadConfig) -> str:
    """Why no head can read the tokens of the image."""
    return "its frame makes tokens that are none of the image"


def group(path: Path, variable: nnx.Variable, config: PadConfig, model: Model):
    """The frame and the head are trained."""
    trained = path[0] == "head" or path[:2] == ("edits", "pad")
    return "trainable" if trained else "frozen"
