"""From uint8 images to what a backbone takes: resize, crop and flip, then normalise.

The legacy resize is the bilinear one of TensorFlow 1 (`tf.compat.v1.image.resize` with
its defaults), as in the public VPT code: output pixel i lies at input coordinate
i * in / out, without the half-pixel shift of later libraries, clamped at the far edge
and without antialiasing. It comes in two forms that agree to rounding: gathers in NumPy
for one image on the host, and two matrix products for a batch inside a compiled step.
The other resizes are Pillow's, antialiased, and stay on the host.

Presets that crop are resized on the host to a fixed shorter side (`resize_for`); the
crop and the flip are drawn on the device (`crop_flip_device`), anew in every epoch.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32, Key, Num, UInt8
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
      crop: resize the shorter side to `shorter_side(size)`, keeping the aspect ratio,
        and cut a square: at random in training, the centre in evaluation. Otherwise
        the whole image is resized to a square.
      flip: mirror left and right with probability 0.5 in training.
    """

    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: str = "legacy"
    crop: bool = False
    flip: bool = False


PRESETS = {
    preset.name: preset
    for preset in (
        # The public VPT code on VTAB-1k, with ImageNet's mean and standard deviation
        # whatever the checkpoint was trained with.
        Preset("vpt", *_IMAGENET),
        # [-1, 1], what the supervised ViT checkpoints were trained with.
        Preset("inception", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        # The public VPT code on FGVC: 256 to 224, 438 to 384, 512 to 448 px.
        Preset("vpt_fgvc", *_IMAGENET, resize="pil_bilinear", crop=True, flip=True),
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
        raise UserError(f"unknown preset {name!r}: use one of {', '.join(PRESETS)}")
    return PRESETS[name]


def shorter_side(size: int) -> int:
    """Shorter side [px] from which `size` px are cut: 256, 438, 512 for 224, 384, 448.

    8 / 7 of it, rounded down: the three pairs of the public code and what lies between.
    """
    return size * 8 // 7


def resize_for(
    preset: Preset, image_uint8: UInt8[np.ndarray, "h w 3"], size: int
) -> UInt8[np.ndarray, "y x 3"] | Float32[np.ndarray, "y x 3"]:
    """One image of any size as the device needs it; in [0, 255], not normalised.

    Args:
      preset: which resize, and whether the image is cropped later.
      image_uint8: one image.
      size: of the backbone [px].

    Returns:
      (size, size, 3), float32 for the legacy resize, else uint8; with `preset.crop` the
      shorter side is `shorter_side(size)` and the longer one follows the aspect ratio.
    """
    height, width, _ = image_uint8.shape
    if not preset.crop:
        if preset.resize == "legacy":
            return resize_host(image_uint8, size)
        return _pillow(preset, image_uint8, size, size)
    shorter, least = shorter_side(size), min(height, width)
    # Longer sides are rounded down, as torchvision's Resize does.
    return _pillow(
        preset, image_uint8, shorter * height // least, shorter * width // least
    )


def stack_padded(
    images: Sequence[UInt8[np.ndarray, "h w 3"]],
) -> tuple[UInt8[np.ndarray, "n H W 3"], Int32[np.ndarray, "n 2"]]:
    """Images of several sizes as one array, zeros right and below, and their sizes."""
    extents = np.array([image.shape[:2] for image in images], np.int32)
    stacked = np.zeros((len(images), *extents.max(0), 3), np.uint8)
    for place, image in zip(stacked, images, strict=True):
        place[: image.shape[0], : image.shape[1]] = image
    return stacked, extents


def crop_flip_device(
    images: Num[Array, "B h w 3"],
    key: Key[Array, ""],
    size: int,
    train: bool,
    extents: Int[Array, "B 2"] | None = None,
) -> Num[Array, "B {size} {size} 3"]:
    """Cuts squares out of a batch; traceable, with `size` and `train` static.

    Args:
      images: at least `size` px on both sides.
      key: one key; every image draws its own crop and flip from it.
      size: [px].
      train: a crop at any place and a flip with probability 0.5; else the centre.
      extents: heights and widths without padding (`stack_padded`); None: no padding.
    """
    batch, height, width, _ = images.shape
    if extents is None:
        extents = jnp.broadcast_to(jnp.array([height, width]), (batch, 2))
    room = extents - size
    if not train:
        # Half of an odd pixel goes to the even neighbour, as Python's round does in
        # torchvision's CenterCrop.
        return _cut(images, jnp.round(room / 2).astype(jnp.int32), size)
    where, mirror = jax.random.split(key)
    corners = jax.random.randint(where, (batch, 2), 0, room + 1)
    squares = _cut(images, corners, size)
    flip = jax.random.bernoulli(mirror, 0.5, (batch, 1, 1, 1))
    return jnp.where(flip, squares[:, :, ::-1], squares)


def _cut(
    images: Num[Array, "B h w 3"], corners: Int[Array, "B 2"], size: int
) -> Num[Array, "B {size} {size} 3"]:
    def one(image, corner):
        start = (corner[0], corner[1], 0)
        return jax.lax.dynamic_slice(image, start, (size, size, 3))

    return jax.vmap(one)(images, corners)


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
