"""From uint8 images to what a backbone takes: resize, crop, then normalise.

The legacy resize is the bilinear one of TensorFlow 1 (`tf.compat.v1.image.resize` with
its defaults), as in the public VPT code: output pixel i lies at input coordinate
i * in / out, without the half-pixel shift of later libraries, clamped at the far edge
and without antialiasing. It comes in two forms that agree to rounding: gathers in NumPy
for one image on the host, and two matrix products for a batch inside a compiled step.
The other resizes are Pillow's, antialiased, and stay on the host.

What is random, the crop and the flip of training images, is in `augment`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, UInt8
from PIL import Image

from vpt_jax.errors import UserError

PILLOW = {
    "pil_bilinear": Image.Resampling.BILINEAR,
    "pil_bicubic": Image.Resampling.BICUBIC,
}
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Preset:
    """What happens to an image; in the end images in [0, 1] become (x - mean) / std.

    Attributes:
      name: its key in `PRESETS`.
      mean: by channel.
      std: by channel.
      resize: 'legacy', or one of `PILLOW`.
      shorter: (a, b): resize the shorter side to a / b of the backbone's size, keeping
        the aspect ratio, and cut the square in the centre. None: resize the whole
        image to the square.
      augment: in training cut the square anywhere, and mirror it half of the time.
    """

    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: str = "legacy"
    shorter: tuple[int, int] | None = None
    augment: bool = False


BACKBONE = "backbone"  # the preset that depends on the backbone
PRESETS = {
    preset.name: preset
    for preset in (
        # The public VPT code on VTAB-1k, with ImageNet's mean and standard deviation
        # whatever the checkpoint was trained with.
        Preset("vpt", *_IMAGENET),
        # [-1, 1], what the supervised ViT checkpoints were trained with.
        Preset("inception", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        # The public VPT code on FGVC: 256 to 224, 438 to 384, 512 to 448 px.
        Preset("vpt_fgvc", *_IMAGENET, "pil_bilinear", (256, 224), augment=True),
        # The benchmark's own code: [0, 1].
        Preset("task_adaptation", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        # NOAH, in the scripts that retrain. Its files were re-encoded as JPEG before:
        # give that folder as the task to have the same pixels.
        Preset("noah", *_IMAGENET, resize="pil_bicubic"),
        # V-PETL Bench on VTAB-1k, without its optional augmentation.
        Preset("v_petl", *_IMAGENET, resize="pil_bilinear"),
    )
}


def get_preset(name: str) -> Preset:
    """The preset of that name."""
    if name not in PRESETS:
        known = ", ".join([*PRESETS, BACKBONE])
        raise UserError(f"unknown preset {name!r}: use one of {known}")
    return PRESETS[name]


def of_pretraining(mean, std, resize: str, image_size: int) -> Preset:
    """The preset 'backbone': what a checkpoint was pre-trained with.

    Args:
      mean, std: by channel.
      resize: 'bicubic' or 'bilinear'; with a number, the shorter side [px].
      image_size: [px] that `resize` is stated for.
    """
    kind, *shorter = resize.split()
    pair = (int(shorter[0]), image_size) if shorter else None
    return Preset(BACKBONE, mean, std, f"pil_{kind}", pair)


def resize_for(
    preset: Preset, image_uint8: UInt8[np.ndarray, "h w 3"], size: int
) -> UInt8[np.ndarray, "y x 3"] | Float32[np.ndarray, "y x 3"]:
    """One image of any size as `augment` takes it; in [0, 255], not normalised.

    Args:
      preset: which resize.
      image_uint8: one image.
      size: of the backbone [px].

    Returns:
      (size, size, 3), float32 for the legacy resize, else uint8; with `preset.shorter`
      the shorter side has that length and the longer one follows the aspect ratio.
    """
    height, width, _ = image_uint8.shape
    if preset.shorter is None:
        if preset.resize == "legacy":
            return resize_host(image_uint8, size)
        return _pillow(preset, image_uint8, size, size)
    above, below = preset.shorter
    shorter, least = size * above // below, min(height, width)
    # Longer sides are rounded down, as torchvision's Resize does.
    return _pillow(
        preset, image_uint8, shorter * height // least, shorter * width // least
    )


def view(
    preset: Preset, image_uint8: UInt8[np.ndarray, "h w 3"], size: int
) -> UInt8[np.ndarray, "{size} {size} 3"] | Float32[np.ndarray, "{size} {size} 3"]:
    """One image as it is scored: `resize_for`, then the square in the centre."""
    image = resize_for(preset, image_uint8, size)
    # Half of an odd pixel goes to the even neighbour, as torchvision's CenterCrop does.
    top, left = (round((extent - size) / 2) for extent in image.shape[:2])
    return image[top : top + size, left : left + size]


def _pillow(
    preset: Preset, image: UInt8[np.ndarray, "h w 3"], height: int, width: int
) -> UInt8[np.ndarray, "y x 3"]:
    resized = Image.fromarray(image).resize((width, height), PILLOW[preset.resize])
    return np.asarray(resized)


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
    images: UInt8[Array, "B h w 3"] | Float[Array, "B h w 3"], size: int
) -> Float32[Array, "B {size} {size} 3"]:
    """Resizes a batch of one size in [0, 255], where it stays; traceable."""
    _, height, width, _ = images.shape
    images = jnp.asarray(images, jnp.float32)
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
