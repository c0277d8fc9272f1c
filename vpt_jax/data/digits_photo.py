"""Two handwritten digits upon a photograph, of which the left one counts: a real task
that needs no download.

The digits of `data.digits`, each in a colour of its own upon a part of one of the two
photographs that come with scikit-learn (a Chinese temple, a dahlia), in the manner of
MNIST-back-image (Larochelle et al., ICML 2007). Beside each lies another one, so that
features of the whole image do not say which is meant: as in the structured tasks of
VTAB, the answer depends on where a thing is. Training, validation and test digits are
of other writers, and lie upon other parts of the photographs.
"""

import functools

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from vpt_jax.data import digits
from vpt_jax.data.examples import Examples
from vpt_jax.data.tasks import Task

SIDE = 32  # of an image [px]
# Of the five strips of equal width that a photograph falls into.
_STRIPS = {"train": (0, 2, 4), "val": (1,), "test": (3,)}
_COPIES = {"train": 4, "val": 4, "test": 1}  # of each digit, painted anew
_SEEDS = {"train": 1, "val": 2, "test": 3}
_CUT = (16, 40)  # side of what is cut out of a photograph [px], from, up to
_DIGIT = (15, 18)  # side of a digit in the image [px]
CONTRAST = (0.5, 0.9)  # of a digit's brightness to what it covers
TINT = 0.15  # how far its red, green and blue are from that


def make_task() -> Task:
    """The task 'digits_photo'."""
    return Task(
        name="digits_photo",
        group="embedded",
        num_classes=digits.NUM_CLASSES,
        part=lambda part, data_dir: render(part),
        class_names=digits.class_names,
    )


@functools.cache
def render(part: str) -> Examples:
    """'train', 'val' or 'test'; always the same images."""
    rng = np.random.default_rng(_SEEDS[part])
    plain, grounds = digits.part(part, None), strips(_photographs(), part)
    ink = np.asarray(plain.images)[..., 0] / 255
    copies = _COPIES[part]
    images = []
    for _ in range(copies):
        for left in ink:
            right = ink[_between(rng, 0, len(ink))]
            below = paint(rng, _background(rng, grounds), left, 0)
            painted = paint(rng, below, right, SIDE // 2)
            images.append(np.rint(255 * painted).astype(np.uint8))
    ids = tuple(f"{name}/{copy}" for copy in range(copies) for name in plain.ids)
    return Examples(np.stack(images), np.tile(plain.labels, copies), ids)


def _photographs() -> list[UInt8[np.ndarray, "h w 3"]]:
    from sklearn.datasets import load_sample_images  # a slow import, see `digits`

    return load_sample_images().images


def strips(photographs: list[np.ndarray], part: str) -> list[np.ndarray]:
    """Those of each photograph (h, w, 3) that belong to a part of the task."""
    return [np.array_split(x, 5, axis=1)[n] for x in photographs for n in _STRIPS[part]]


def _background(
    rng: np.random.Generator, strips: list[UInt8[np.ndarray, "h w 3"]]
) -> Float[np.ndarray, "SIDE SIDE 3"]:
    """A square from anywhere in one of them."""
    strip = strips[_between(rng, 0, len(strips))]
    side = _between(rng, *_CUT)
    y, x = (_between(rng, 0, length - side) for length in strip.shape[:2])
    square = Image.fromarray(strip[y : y + side, x : x + side])
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BOX)) / 255


def paint(
    rng: np.random.Generator,
    background: Float[np.ndarray, "SIDE SIDE 3"],
    digit: Float[np.ndarray, "8 8"],
    start: int,
) -> Float[np.ndarray, "SIDE SIDE 3"]:
    """The digit in the half of it that begins at column `start`, at any height.

    Lighter than dark ground, and darker than light.
    """
    side = _between(rng, *_DIGIT)
    ink = Image.fromarray(digit.astype(np.float32))
    ink = np.asarray(ink.resize((side, side), Image.Resampling.BICUBIC))
    y = _between(rng, 0, SIDE - side + 1)
    x = start + _between(rng, 0, max(1, SIDE // 2 - side + 1))
    x = min(x, SIDE - side)
    opacity = np.pad(ink.clip(0, 1), ((y, SIDE - side - y), (x, SIDE - side - x)))
    covered = np.average(background.mean(-1), weights=opacity)
    contrast = rng.uniform(*CONTRAST)
    brightness = covered - contrast if covered > 0.5 else covered + contrast
    colour = np.clip(brightness + rng.uniform(-TINT, TINT, 3), 0, 1)
    opacity = opacity[..., None]
    return background * (1 - opacity) + colour * opacity


def _between(rng: np.random.Generator, low: int, high: int) -> int:
    return low + int(rng.random() * (high - low))
