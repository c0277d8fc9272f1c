"""Random views of photographs with a target for each pixel.

    scale     keep the aspect ratio, the shorter side 0.5 to 2 times the size asked for
    crop      a square of that size, drawn again (10 times at most) while it shows one
              class only, or one on more than 75 % of its labelled pixels
    mirror    half of the time
    colours   each half of the time: brightness, contrast, saturation, hue
    pad       what is smaller: with the mean colour, and with no target

mmsegmentation's pipeline for ADE20K (`_base_/datasets/ade20k.py`, `transforms.py`),
whose longer side is 4 times the shorter one at most. The image is resized bilinearly,
targets take the nearest pixel. All that is random comes from numbers that the caller
draws (`augment.draw`), so a view follows from (seed, epoch, image).
"""

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image as pillow

from vpt_jax import bilinear
from vpt_jax.data.examples import Image

SCALES, LONGEST = (0.5, 2.0), 4
REDRAWS, MOST = 10, 0.75
IGNORED = 255
BRIGHTNESS, FACTORS, HUE = 32, (0.5, 1.5), 18  # hue: of 180

_PLACES = 1 + 2 * (REDRAWS + 1)
_FLIP, _COLOURS = _PLACES, _PLACES + 1
NUMBERS = _COLOURS + 9


def crop(
    image: Image,
    drawn: Float32[np.ndarray, " numbers"],
    size: int,
    mean: tuple[float, float, float],
) -> Float32[np.ndarray, "{size} {size} 4"]:
    """A view of an image with its targets, colours in [0, 255].

    Args:
        image: (h, w, 4) uint8, the last channel the targets.
        drawn: `NUMBERS` in [0, 1).
        size: Of the view [px].
        mean: Colour in [0, 1] that becomes 0 when it is normalised.
    """
    height, width = scaled(image.shape[:2], size, float(drawn[0]))
    rows, columns = _place(image[..., 3], height, width, size, drawn[1:_PLACES])
    down = bilinear.coordinates(image.shape[0], height)[rows]
    along = bilinear.coordinates(image.shape[1], width)[columns]
    colours = np.rint(bilinear.sample(image[..., :3], down, along)).astype(np.uint8)
    targets = _nearest(image[..., 3], height, width, rows, columns)
    if drawn[_FLIP] < 0.5:
        colours, targets = colours[:, ::-1], targets[:, ::-1]
    found = np.empty((size, size, 4), np.float32)
    found[..., :3], found[..., 3] = 255 * np.asarray(mean, np.float32), IGNORED
    high, wide = targets.shape
    found[:high, :wide, :3] = recoloured(colours, drawn[_COLOURS:])
    found[:high, :wide, 3] = targets
    return found


def scaled(extents: tuple[int, ...], size: int, number: float) -> tuple[int, int]:
    """Height and width of an image whose scale a number in [0, 1) decides."""
    low, high = SCALES
    shorter = size * (low + (high - low) * number)
    factor = min(shorter / min(extents), LONGEST * shorter / max(extents))
    height, width = (max(1, int(extent * factor + 0.5)) for extent in extents)
    return height, width


def _place(targets, height: int, width: int, size: int, drawn) -> tuple[slice, slice]:
    """The rows and columns of the first square that shows enough, or of the last."""
    room = np.array([max(height - size, 0), max(width - size, 0)])
    corners = np.floor(drawn.reshape(-1, 2) * (room + 1)).astype(int)
    for top, left in corners[:-1]:
        rows, columns = slice(top, top + size), slice(left, left + size)
        if _shows_enough(_nearest(targets, height, width, rows, columns)):
            return rows, columns
    top, left = corners[-1]
    return slice(top, top + size), slice(left, left + size)


def _nearest(targets, height, width, rows, columns) -> UInt8[np.ndarray, "y x"]:
    down = bilinear.nearest(targets.shape[0], height)[rows]
    along = bilinear.nearest(targets.shape[1], width)[columns]
    return targets[down][:, along]


def _shows_enough(targets: UInt8[np.ndarray, "y x"]) -> bool:
    counts = np.bincount(targets.reshape(-1), minlength=IGNORED + 1)[:IGNORED]
    return bool(np.count_nonzero(counts) > 1 and counts.max() < MOST * counts.sum())


def recoloured(
    image: UInt8[np.ndarray, "y x 3"], drawn: Float32[np.ndarray, " 9"]
) -> UInt8[np.ndarray, "y x 3"]:
    """Another brightness, contrast, saturation and hue, each half of the time."""
    low, high = FACTORS
    lighter, stronger, last, richer, turned = drawn[:5] < 0.5
    shift = BRIGHTNESS * (2 * drawn[5] - 1)
    contrast, saturation = low + (high - low) * drawn[6:8]
    hue = int(2 * HUE * drawn[8]) - HUE
    if lighter:
        image = _rounded(image + np.float32(shift))
    if stronger and not last:
        image = _rounded(image * np.float32(contrast))
    if richer or turned:
        hsv = np.array(pillow.fromarray(image).convert("HSV"))
        if richer:
            hsv[..., 1] = _rounded(hsv[..., 1] * np.float32(saturation))
        if turned:
            hsv[..., 0] += np.uint8(round(hue * 256 / 180) % 256)
        image = np.asarray(pillow.fromarray(hsv, "HSV").convert("RGB"))
    if stronger and last:
        image = _rounded(image * np.float32(contrast))
    return image


def _rounded(x: np.ndarray) -> np.ndarray:
    return np.rint(x.clip(0, 255)).astype(np.uint8)
