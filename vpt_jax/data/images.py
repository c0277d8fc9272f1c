"""Image files as arrays, and which files those are.

What is read was written by others: only `FORMATS` are tried, whatever a file is called
(Pillow would hand an EPS file named .jpg to Ghostscript), and what would take a
disproportionate amount of memory is refused before it is decoded.
"""

import io
import os
import pathlib

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from vpt_jax.errors import UserError

FORMATS = {
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "PPM": (".ppm",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
"""Pillow's name of each format that is read, and its endings."""

SUFFIXES = {ending for endings in FORMATS.values() for ending in endings}
MAX_PIXELS = 89_478_485  # where Pillow warns of a decompression bomb: 256 MiB of RGB
MAX_ASPECT = 200  # resizing the shorter side to 512 px makes 102,400 px of the longer


class OversizedError(UserError):
    """An image of more than `MAX_PIXELS`."""


def read_image(path: pathlib.Path) -> UInt8[np.ndarray, "h w 3"]:
    """An image file as RGB.

    Transparency is left out; of several frames the first is taken. Grey images of 16
    bits are scaled to 8, rounded: 65,535 becomes 255 (PNG, TIFF and PPM; integers of 32
    bits, as some write TIFF files, hold such values too). Of colour images of 16 bits,
    Pillow gives the upper 8.

    Raises:
      UserError: not an image of `FORMATS`, damaged, of more than `MAX_PIXELS` or longer
        than `MAX_ASPECT` times its width, or of grey values without a known white.
    """
    try:
        return _decode(path)
    except Exception as error:  # a damaged file makes Pillow raise all kinds
        raise UserError(
            f"{path}: cannot be read as an image ({_reason(error)}); replace or "
            "remove it"
        ) from error


def decode_image(encoded: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """The content of an image file as RGB: see `read_image`."""
    try:
        return _decode(io.BytesIO(encoded))
    except (OversizedError, Image.DecompressionBombError) as error:
        raise OversizedError(_reason(error)) from error
    except Exception as error:
        raise UserError(f"cannot be read as an image ({_reason(error)})") from error


def read_mask(path: pathlib.Path) -> UInt8[np.ndarray, "h w"]:
    """The numbers of a mask: an image of one channel, or with a palette, of 8 bits.

    Raises:
      UserError: it cannot be read, or has several channels.
    """
    try:
        return _decode_mask(path)
    except Exception as error:
        raise UserError(
            f"{path}: cannot be read as a mask ({_reason(error)})"
        ) from error


def decode_mask(encoded: bytes) -> UInt8[np.ndarray, "h w"]:
    """The content of a mask's file: see `read_mask`."""
    try:
        return _decode_mask(io.BytesIO(encoded))
    except Exception as error:
        raise UserError(f"cannot be read as a mask ({_reason(error)})") from error


def find_images(folder: pathlib.Path) -> tuple[list[pathlib.Path], int]:
    """Image files below a folder, by their endings.

    Returns:
      The files, sorted, and how many hidden image files and folders were passed over.
    """
    found, hidden = [], 0
    for name, folders, files in os.walk(folder):
        paths = [pathlib.Path(name, file) for file in files]
        images = [path for path in paths if path.suffix.lower() in SUFFIXES]
        shown = [path for path in images if not is_hidden(path.name)]
        entered = [path for path in folders if not is_hidden_folder(path)]
        hidden += len(images) - len(shown) + len(folders) - len(entered)
        found += shown
        folders[:] = entered
    return sorted(found), hidden


def is_hidden(name: str) -> bool:
    """Whether a file of this name is no image of the user's, such as `._a.jpg`."""
    return name.startswith(".")


def is_hidden_folder(name: str) -> bool:
    """The same of a folder: `.git`, `__MACOSX`."""
    return name.startswith((".", "__"))


def _decode(file: pathlib.Path | io.BytesIO) -> UInt8[np.ndarray, "h w 3"]:
    with Image.open(file, formats=tuple(FORMATS)) as image:
        _check_size(image)
        if image.mode == "F":
            raise ValueError("floating-point grey values; save it with 8 or 16 bits")
        if image.mode.startswith("I"):  # I;16 and its byte orders, or 32 bits
            return np.repeat(_scaled(image)[..., None], 3, axis=-1)
        return np.asarray(image.convert("RGB"))


def _decode_mask(file: pathlib.Path | io.BytesIO) -> UInt8[np.ndarray, "h w"]:
    with Image.open(file, formats=tuple(FORMATS)) as image:
        _check_size(image)
        if image.mode not in ("L", "P", "1"):
            raise ValueError(
                f"its mode is {image.mode}; a mask has one number of 8 bits for each "
                "pixel"
            )
        return np.asarray(image).astype(np.uint8)


def _check_size(image: Image.Image) -> None:
    """Refuse what would take too much memory to decode."""
    width, height = image.size  # known from the header; nothing is decoded yet
    # Checked here: how Pillow's warning is treated is one setting for all threads.
    if width * height > MAX_PIXELS:
        raise OversizedError(
            f"{width} x {height} px are more than {MAX_PIXELS:,} pixels"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(
            f"of {width} x {height} px, one side is over {MAX_ASPECT} times the other"
        )


def _scaled(image: Image.Image) -> UInt8[np.ndarray, "h w"]:
    """Grey values from 0 to 65,535 as 0 to 255."""
    tags = getattr(image, "tag_v2", {})  # TIFF; Pillow gives these values as they are
    [bits] = tags.get(ExifTags.Base.BitsPerSample, (16,))
    if bits not in (16, 32):
        raise ValueError(f"grey values of {bits} bits; save it with 8 or 16 bits")
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:
        raise ValueError(
            "white is zero in it; save it with 8 or 16 bits where black is"
        )
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if low < 0 or high > 65535:
        raise ValueError(f"grey values from {low} to {high}; save it with 8 or 16 bits")
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _reason(error: Exception) -> str:
    """One line."""
    if isinstance(error, UnidentifiedImageError):
        return f"not a whole file of {', '.join(FORMATS)}"
    return " ".join(str(error).split()) or type(error).__name__
