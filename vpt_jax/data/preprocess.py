"""From uint8 images to what a backbone takes: resize, then normalise.

The resize is the bilinear one of TensorFlow 1 (`tf.compat.v1.image.resize` with its
defaults), as in the public VPT code: output pixel i lies at input coordinate
i * in / out, without the half-pixel shift of later libraries, clamped at the far edge
and without antialiasing. It comes in two forms that agree to rounding: gathers in NumPy
for one image on the host, and two matrix products for a batch inside a compiled step.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, UInt8

from vpt_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Preset:
    """A normalisation: images in [0, 1] become (image - mean) / std, by channel."""

    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


PRESETS = {
    # The mean and standard deviation of ImageNet, used by the public VPT code for all
    # tasks and supervised ViT checkpoints.
    "vpt": Preset("vpt", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # [-1, 1], what the supervised ViT checkpoints were trained with.
    "inception": Preset("inception", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def get_preset(name: str) -> Preset:
    """The preset of that name."""
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}: use one of {', '.join(PRESETS)}")
    return PRESETS[name]


def _neighbours(
    in_size: int, out_size: int
) -> tuple[
    Int[np.ndarray, " out"], Int[np.ndarray, " out"], Float32[np.ndarray, " out"]
]:
    """For each output pixel: its two input pixels and the weight of the second."""
    # TensorFlow computes scale and coordinate in float32, so do we: in float64 the
    # weights of a large image would differ in the fifth digit.
    scale = np.float32(in_size) / np.float32(out_size)
    coordinate = np.arange(out_size, dtype=np.float32) * scale
    lower = np.minimum(coordinate.astype(np.int64), in_size - 1)
    upper = np.minimum(lower + 1, in_size - 1)
    return lower, upper, coordinate - np.floor(coordinate)


def legacy_bilinear_matrix(
    in_size: int, out_size: int
) -> Float32[np.ndarray, "out in"]:
    """The resize of one axis as a matrix R: image -> R_h @ image @ R_w^T."""
    lower, upper, weight = _neighbours(in_size, out_size)
    rows = np.arange(out_size)
    matrix = np.zeros((out_size, in_size), np.float32)
    matrix[rows, lower] += 1 - weight
    matrix[rows, upper] += weight  # the same entry as `lower` where the edge clamps
    return matrix


def resize_host(
    image_uint8: UInt8[np.ndarray, "h w 3"], size: int
) -> Float32[np.ndarray, "{size} {size} 3"]:
    """Resizes one image on the host; the result stays in [0, 255]."""
    height, width, _ = image_uint8.shape
    top, bottom, down = _neighbours(height, size)
    left, right, along = _neighbours(width, size)
    down, along = down[:, None, None], along[None, :, None]
    image = image_uint8.astype(np.float32)
    above = image[top][:, left] * (1 - along) + image[top][:, right] * along
    below = image[bottom][:, left] * (1 - along) + image[bottom][:, right] * along
    return above * (1 - down) + below * down


def resize_device(
    images_uint8: UInt8[Array, "B h w 3"], size: int
) -> Float32[Array, "B {size} {size} 3"]:
    """Resizes a batch of one size; traceable; the result stays in [0, 255]."""
    _, height, width, _ = images_uint8.shape
    images = jnp.asarray(images_uint8, jnp.float32)
    if (height, width) == (size, size):
        return images
    # HIGHEST: a GPU's or TPU's default precision would round pixels to 8 to 11 bits.
    highest = jax.lax.Precision.HIGHEST
    down = legacy_bilinear_matrix(height, size)
    along = legacy_bilinear_matrix(width, size)
    images = jnp.einsum("yh,bhwc->bywc", down, images, precision=highest)
    return jnp.einsum("xw,bywc->byxc", along, images, precision=highest)


def normalize(
    images_0_255: Float[Array, "B h w 3"], preset: Preset
) -> Float[Array, "B h w 3"]:
    """Applies a preset to images in [0, 255]."""
    mean = jnp.asarray(preset.mean, jnp.float32).reshape(1, 1, 1, 3)
    std = jnp.asarray(preset.std, jnp.float32).reshape(1, 1, 1, 3)
    return (images_0_255 / 255 - mean) / std
