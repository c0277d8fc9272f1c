"""How an image of any size is seen through square windows, and put together again.

    whole     one window: the image resized to the square
    slide     the shorter side resized to that of a window; windows every two thirds of
              it, the last one shifted back inside; where they overlap, their logits are
              averaged
    several   the same at six sizes, each mirrored as well; the mean of the softmaxes.
              Below the usual size, windows shrink with the image

as mmsegmentation's `slide_inference` and `aug_test`. All of it is linear and one axis
at a time: a window is rows @ image @ columns, and its part of the logits at the image's
own size is down @ logits @ along.T. So a view is a few small matrices, and compiled
programs take those as arguments, whatever size the image has.

Deviations: windows below the usual size are square, where mmsegmentation cuts such as
are as long as the image, up to the usual size; and the longer side is not limited to
four times the shorter one.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from vpt_jax import bilinear
from vpt_jax.data.examples import Image

MODES = ("slide", "whole")
RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


@dataclasses.dataclass(frozen=True)
class Inference:
    """How images are seen when they are scored or labelled.

    Attributes:
        mode: Of `MODES`.
        several: Whether several scales are scored besides.
    """

    mode: str = "slide"
    several: bool = False


@dataclasses.dataclass(frozen=True)
class Axis:
    """Windows along one axis of an image of `length` pixels.

    Attributes:
        length: Of the image.
        resized: Of the resized image.
        starts: Of the windows in that.
        window: Pixels of a window.
        mirrored: Whether the image is mirrored along it.
    """

    length: int
    resized: int
    starts: tuple[int, ...]
    window: int
    mirrored: bool = False

    def where(self, start: int) -> Float32[np.ndarray, " s"]:
        """The pixels of a window as coordinates of the image."""
        where = bilinear.coordinates(self.length, self.resized)
        where = self.length - 1 - where if self.mirrored else where
        return where[start : start + self.window]

    def back(self, points: int) -> Float32[np.ndarray, "n length points"]:
        """From `points` logits along each window to every pixel: they are enlarged to
        the window, averaged where windows overlap, and resized to the image."""
        return _back(self, points)


@functools.lru_cache(16)  # megabytes each
def _back(axis: Axis, points: int) -> Float32[np.ndarray, "n length points"]:
    enlarge = bilinear.matrix(points, axis.window)
    resize = bilinear.matrix(axis.resized, axis.length)
    resize = resize[::-1] if axis.mirrored else resize
    number = np.zeros(axis.resized)
    for start in axis.starts:
        number[start : start + axis.window] += 1
    resize = resize / number[None]
    parts = [resize[:, s : s + axis.window] @ enlarge for s in axis.starts]
    return np.stack(parts).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class View:
    """One look at an image: windows are all pairs of `down` and `along`."""

    down: Axis
    along: Axis

    @property
    def window(self) -> int:
        """Side of a window [px]."""
        return self.down.window

    def cut(self, image: Image) -> Float32[np.ndarray, "n s s 3"]:
        """The windows, row by row."""
        pairs = [(y, x) for y in self.down.starts for x in self.along.starts]
        return np.stack(
            [
                bilinear.sample(image, self.down.where(y), self.along.where(x))
                for y, x in pairs
            ]
        )

    def back(self, points: int):
        """(n, height, points) and (n, width, points): `Axis.back` of each window."""
        down, along = self.down.back(points), self.along.back(points)
        return np.repeat(down, len(along), 0), np.tile(along, (len(down), 1, 1))


def views(
    height: int, width: int, size: int, patch: int, inference: Inference, several: bool
) -> Sequence[View]:
    """What is looked at of an image.

    Args:
        height, width: Of the image [px].
        size: Of the windows that the network was tuned on [px].
        patch: Multiples of which are possible windows [px].
        inference: How.
        several: Whether at several scales, each mirrored as well.
    """
    found = []
    for ratio in RATIOS if several else (1.0,):
        window = max(1, round(ratio * size / patch)) * patch
        if inference.mode == "slide":
            window = min(window, size)
        if inference.mode == "whole":
            axes = [Axis(x, window, (0,), window) for x in (height, width)]
        else:
            shorter = max(window, round(ratio * size))
            factor = shorter / min(height, width)
            lengths = [max(shorter, int(x * factor + 0.5)) for x in (height, width)]
            pairs = zip((height, width), lengths, strict=True)
            axes = [Axis(x, long, _starts(long, window), window) for x, long in pairs]
        down, along = axes
        found.append(View(down, along))
        if several:
            found.append(View(down, dataclasses.replace(along, mirrored=True)))
    return found


def _starts(length: int, window: int) -> tuple[int, ...]:
    stride = max(1, window * 2 // 3)
    number = -(-max(length - window, 0) // stride) + 1
    return tuple(min(n * stride, length - window) for n in range(number))
