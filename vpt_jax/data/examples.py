"""Labelled images as they were read: uint8 pixels, integer labels, one id each.

A `Source` may leave them where they are (`source.py`); `Examples` are in memory.
"""

import abc
import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int32, UInt8

Image = UInt8[np.ndarray, "_ _ _"]
"""Height and width, others for each of a list; RGB, and where every pixel has a target
(`DENSE` objectives) that as a fourth channel."""

Indices = Sequence[int | np.integer] | Int[np.ndarray, " k"]


class Source(abc.ABC):
    """Labelled images in a fixed order.

    A class to inherit from and no protocol: to see whether an object has what a
    protocol asks for, Python 3.11 would compute its labels.

    Attributes:
      labels: int32 (n,). May have to look at every record (without decoding its
        image); `select` first where only some are needed.
      ids: one name per example that says where it came from.
    """

    labels: Int32[np.ndarray, "n *t"]
    ids: tuple[str, ...]

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def read(self, indices: Indices) -> list[Image]:
        """Decodes the images of these numbers, in their order."""

    @abc.abstractmethod
    def select(self, indices: Indices) -> "Source":
        """The source of these examples only, in their order; reads nothing."""


@dataclasses.dataclass(frozen=True)
class Examples(Source):
    """Images with labels and ids, in a fixed order, in memory.

    Attributes:
      images: one uint8 array (n, h, w, 3) where all sizes agree, else a list of
        uint8 arrays (h_i, w_i, 3). Never resized here.
      labels: int32 (n,), classes counted from 0, or (n, ...) as the task's kind has it.
      ids: one name per example that says where it came from.
    """

    images: UInt8[np.ndarray, "n h w c"] | list[Image]
    labels: Int32[np.ndarray, "n *t"]
    ids: tuple[str, ...]

    def __post_init__(self):
        if not len(self.images) == len(self.labels) == len(self.ids):
            raise ValueError(
                f"{len(self.images)} images, {len(self.labels)} labels and "
                f"{len(self.ids)} ids: the three lengths must agree"
            )

    @classmethod
    def from_images(
        cls,
        images: Sequence[Image],
        labels: Sequence[int | np.integer] | Int[np.ndarray, "n *t"],
        ids: Sequence[str],
    ) -> "Examples":
        """Gathers single images, into one array if they all have the same size."""
        same_size = len({image.shape for image in images}) == 1
        return cls(
            images=np.stack(images) if same_size else list(images),
            labels=np.asarray(labels, np.int32),
            ids=tuple(ids),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def uniform_size(self) -> bool:
        """Whether the images are one array (n, h, w, 3)."""
        return isinstance(self.images, np.ndarray)

    def read(self, indices: Indices) -> list[Image]:
        """See `Source`."""
        return [self.images[index] for index in indices]

    def select(self, indices: Indices) -> "Examples":
        """See `Source`."""
        ids = tuple(self.ids[index] for index in indices)
        labels = self.labels[np.asarray(indices, np.int64)]
        return Examples.from_images(self.read(indices), labels, ids)
