"""Images with a mask: a file, or another image of the same record, whose numbers say
what each pixel shows. They are read together, as images of four channels.
"""

import dataclasses
import functools
import pathlib

import numpy as np
from jaxtyping import Int32, UInt8

from vpt_jax.data.examples import Image, Indices, Source
from vpt_jax.data.images import decode_mask, read_image, read_mask
from vpt_jax.data.reading import Records
from vpt_jax.errors import UserError

IGNORED = 255
Mask = UInt8[np.ndarray, "_ _"]


@dataclasses.dataclass(frozen=True)
class Numbers:
    """What the numbers of a mask mean.

    Attributes:
        classes: The number of class 0, 1, ...
        ignored: Numbers of pixels without a class, 255 always among them.
    """

    classes: tuple[int, ...]
    ignored: tuple[int, ...] = (IGNORED,)

    def targets(self, mask: Mask, name: str) -> Mask:
        """The mask with classes 0 to C - 1, and 255 where there is none.

        Raises:
            UserError: Another number; says where it is.
        """
        known = self._known[mask]
        if not known.all():
            row, column = (int(x[0]) for x in np.nonzero(~known))
            raise UserError(
                f"{name}: number {mask[row, column]} in row {row}, column {column} is "
                f"no class; classes are {_span(self.classes)}, ignored are "
                f"{_span(sorted({*self.ignored, IGNORED}))} (data.ignored adds to them)"
            )
        return self._table[mask]

    @functools.cached_property
    def _table(self) -> UInt8[np.ndarray, "256"]:
        table = np.full(256, IGNORED, np.uint8)
        table[list(self.classes)] = np.arange(len(self.classes))
        return table

    @functools.cached_property
    def _known(self) -> np.ndarray:
        return np.isin(np.arange(256), (*self.classes, *self.ignored, IGNORED))


def _span(numbers) -> str:
    """'0 to 10' of neighbours."""
    numbers = list(numbers)
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))


def joined(image: Image, mask: Mask, numbers: Numbers, name: str) -> Image:
    """Image and targets as four channels.

    Raises:
        UserError: They are of different sizes, or the mask has a number of no class.
    """
    if image.shape[:2] != mask.shape:
        (high, wide, _), (rows, columns) = image.shape, mask.shape
        raise UserError(
            f"{name}: a mask of {columns} x {rows} px for an image of {wide} x {high} "
            "px; they must agree"
        )
    return np.dstack([image, numbers.targets(mask, name)])


@dataclasses.dataclass(frozen=True)
class MaskFiles(Source):
    """An image file and a mask file for each example.

    Attributes:
        images, masks: Of each example.
        numbers: Of the masks.
        ids: Of each example.
    """

    images: tuple[pathlib.Path, ...]
    masks: tuple[pathlib.Path, ...]
    numbers: Numbers
    ids: tuple[str, ...]

    @property
    def labels(self) -> Int32[np.ndarray, " n"]:
        """All 0: what there is to learn is in the images' fourth channel."""
        return np.zeros(len(self), np.int32)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, indices: Indices) -> list[Image]:
        """See `Source`; UserError names the file that is wrong."""
        return [self._one(index) for index in indices]

    def _one(self, index) -> Image:
        path = self.masks[index]
        image, mask = read_image(self.images[index]), read_mask(path)
        return joined(image, mask, self.numbers, str(path))

    def select(self, indices: Indices) -> "MaskFiles":
        """See `Source`."""
        images = tuple(self.images[index] for index in indices)
        masks = tuple(self.masks[index] for index in indices)
        ids = tuple(self.ids[index] for index in indices)
        return MaskFiles(images, masks, self.numbers, ids)


@dataclasses.dataclass(frozen=True)
class MaskRecords(Records):
    """Records of TFDS with a mask as a second image.

    Attributes:
        mask_key: The feature that holds it.
        numbers: Of the masks.
    """

    mask_key: str = "segmentation_mask"
    numbers: Numbers = Numbers(())

    @property
    def labels(self) -> Int32[np.ndarray, " n"]:
        """All 0: what there is to learn is in the images' fourth channel."""
        return np.zeros(len(self), np.int32)

    def read(self, indices: Indices) -> list[Image]:
        """See `Source`; UserError names the record that is wrong."""
        images, masks = super().read(indices), self.encoded(indices, self.mask_key)
        names = [self.ids[index] for index in indices]
        return [
            joined(image, decode_mask(mask), self.numbers, name)
            for image, mask, name in zip(images, masks, names, strict=True)
        ]
