"""Labelled images as pictures: a mask in the task's own numbers, and an overlay."""

import colorsys
import functools
import io
import itertools
import pathlib

import numpy as np
from jaxtyping import UInt8
from PIL import Image as pillow
from PIL import ImageDraw, ImageFont

from vpt_jax.data.examples import Image
from vpt_jax.storage.files import write_bytes
from vpt_jax.storage.paths import Folder

COLUMNS = ("mask", "overlay", "classes")
OPACITY = 0.55
LINE, MARGIN, LEGEND = 16, 6, 150  # of the legend [px]


class Album:
    """A folder of pictures: a mask and an overlay for each image, under its name.

    Args:
        folder: Which.
        names: Of the classes.
        numbers: What masks call them.
    """

    def __init__(
        self, folder: Folder, names: tuple[str, ...], numbers: tuple[int, ...]
    ):
        self._folder, self._names, self._numbers = folder, names, numbers
        self._taken = set[str]()

    def add(
        self, path: pathlib.Path, image: Image, labels: UInt8[np.ndarray, "h w"]
    ) -> tuple[str, str, str]:
        """The row that `COLUMNS` names, of an image and the file it was read from."""
        name = _free(path.stem, self._taken)
        mask = self._folder / f"{name}.png"
        overlay = self._folder / f"{name}_overlay.png"
        write_bytes(mask, mask_png(labels, self._numbers))
        write_bytes(overlay, overlay_png(image, labels, self._names))
        return str(mask), str(overlay), shares(labels, self._names)


def _free(stem: str, taken: set[str]) -> str:
    """The name of a file, or where another image has that, with a number."""
    names = itertools.chain([stem], (f"{stem}_{n}" for n in itertools.count(2)))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name


@functools.cache
def palette(count: int) -> UInt8[np.ndarray, "{count} 3"]:
    """Colours that are far apart for neighbours: hues by the golden ratio."""
    rows = [
        colorsys.hsv_to_rgb(
            0.618034 * n % 1, (0.85, 0.55)[n % 2], (0.95, 0.6)[n // 2 % 2]
        )
        for n in range(count)
    ]
    return np.rint(255 * np.array(rows)).astype(np.uint8)


def mask_png(labels: UInt8[np.ndarray, "h w"], numbers: tuple[int, ...]) -> bytes:
    """A PNG with a palette, whose indices are what the task calls the classes."""
    picture = pillow.fromarray(np.asarray(numbers, np.uint8)[labels], "P")
    colours = np.zeros((256, 3), np.uint8)
    colours[list(numbers)] = palette(len(numbers))
    picture.putpalette(colours.reshape(-1).tolist())
    return _png(picture)


def overlay_png(
    image: Image, labels: UInt8[np.ndarray, "h w"], names: tuple[str, ...]
) -> bytes:
    """The image in the colours of its classes, with borders, and what they are."""
    colours = palette(len(names))
    mixed = (1 - OPACITY) * image + OPACITY * colours[labels]
    border = np.zeros(labels.shape, bool)
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    mixed[border] = 255
    height, width = labels.shape
    present = np.argsort(-np.bincount(labels.reshape(-1), minlength=len(names)))
    present = [n for n in present if n in labels]
    tall = max(height, LINE * len(present) + 2 * MARGIN)
    sheet = pillow.new("RGB", (width + LEGEND, tall), "white")
    sheet.paste(pillow.fromarray(np.rint(mixed).astype(np.uint8)), (0, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for line, n in enumerate(present):
        left, top = width + MARGIN, MARGIN + LINE * line
        draw.rectangle((left, top + 2, left + 10, top + 12), fill=tuple(colours[n]))
        draw.text((left + 16, top), names[n][:22], fill="black", font=font)
    return _png(sheet)


def shares(labels: UInt8[np.ndarray, "h w"], names: tuple[str, ...]) -> str:
    """'road 41.2 %; sky 20.0 %', the largest first."""
    counts = np.bincount(labels.reshape(-1), minlength=len(names))
    order = [n for n in np.argsort(-counts, kind="stable") if counts[n]]
    return "; ".join(f"{names[n]} {100 * counts[n] / labels.size:.1f} %" for n in order)


def _png(picture: pillow.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()
