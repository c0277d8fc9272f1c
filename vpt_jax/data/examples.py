"""Labelled images as they were read: uint8 pixels, integer labels, one id each."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int32, UInt8

Image = UInt8[np.ndarray, "h w 3"]


@dataclasses.dataclass(frozen=True)
class Examples:
    """Images with labels and ids, in a fixed order; a `source.Source` in memory.

    Attributes:
      images: one uint8 array (n, h, w, 3) where all sizes agree, else a list of
        uint8 arrays (h_i, w_i, 3). Never resized here.
      labels: int32 (n,), classes counted from 0, or (n, ...) as the task's kind has it.
      ids: one name per example that says where it came from.
    """

    images: UInt8[np.ndarray, "n h w 3"] | list[Image]
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
        cls, images: Sequence[Image], labels: Sequence, ids: Sequence[str]
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

    def read(self, indices: Sequence[int] | Int[np.ndarray, " k"]) -> list[Image]:
        """See `source.Source`."""
        return [self.images[index] for index in indices]

    def select(self, indices: Sequence[int] | Int[np.ndarray, " k"]) -> "Examples":
        """See `source.Source`."""
        ids = tuple(self.ids[index] for index in indices)
        labels = self.labels[np.asarray(indices, np.int64)]
        return Examples.from_images(self.read(indices), labels, ids)
