"""Image files as arrays."""

import io
import pathlib

import numpy as np
from jaxtyping import UInt8
from PIL import Image

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"}


def read_image(path: pathlib.Path | io.BytesIO) -> UInt8[np.ndarray, "h w 3"]:
    """An image file as RGB."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def decode_image(encoded: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """The content of an image file as RGB; one grey channel becomes three."""
    return read_image(io.BytesIO(encoded))
