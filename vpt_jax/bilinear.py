"""Bilinear resampling with half-pixel centres, edges repeated, without antialiasing.

What PyTorch's `interpolate(align_corners=False)` and OpenCV's `INTER_LINEAR` compute:
output i lies at input coordinate (i + 0.5) old / new - 0.5. As a matrix of one axis,
for features, logits and position embeddings, and as gathers, for images on the host.
"""

import numpy as np
from jaxtyping import Float, Float32, Int, Shaped, UInt8


def coordinates(old: int, new: int) -> Float32[np.ndarray, " new"]:
    """Where the new points lie among the old ones, 0 to old - 1."""
    centres = (np.arange(new) + 0.5) * (old / new) - 0.5
    return centres.clip(0, old - 1).astype(np.float32)


def matrix(old: int, new: int) -> Float32[np.ndarray, "{new} {old}"]:
    """The resize of one axis: R @ x."""
    lower, upper, weight = _neighbours(coordinates(old, new), old)
    found, rows = np.zeros((new, old), np.float32), np.arange(new)
    np.add.at(found, (rows, lower), 1 - weight)
    np.add.at(found, (rows, upper), weight)
    return found


def sample(
    image: Shaped[np.ndarray, "h w c"],
    down: Float[np.ndarray, " y"],
    along: Float[np.ndarray, " x"],
) -> Float32[np.ndarray, "y x c"]:
    """An image at the grid of these coordinates."""
    top, bottom, down = _neighbours(down, image.shape[0])
    left, right, along = _neighbours(along, image.shape[1])
    down, along = down[:, None, None], along[None, :, None]
    rows = image[top].astype(np.float32)  # rows first: half of the work
    rows += (image[bottom] - rows) * down
    found = rows[:, left]
    found += (rows[:, right] - found) * along
    return found


def nearest(old: int, new: int) -> Int[np.ndarray, " {new}"]:
    """Which old point each new one takes, as OpenCV's `INTER_NEAREST` rounds down."""
    return np.minimum(np.arange(new) * (old / new), old - 1).astype(np.int64)


def resized(image: UInt8[np.ndarray, "h w c"], height: int, width: int):
    """A whole image of another size, float32 in [0, 255]."""
    down, along = image.shape[:2]
    return sample(image, coordinates(down, height), coordinates(along, width))


def _neighbours(where: np.ndarray, size: int):
    """For each point the two it lies between, and the weight of the second."""
    lower = np.floor(where).astype(np.int64)
    weight = (where - lower).astype(np.float32)
    return lower, np.minimum(lower + 1, size - 1), weight
