"""Labelled images as they were read: uint8 pixels, integer labels, one id each."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, UInt8

Image = UInt8[np.ndarray, "h w 3"]


@dataclasses.dataclass(frozen=True)
class Examples:
    """Images with labels and ids, in a fixed order.

    Attributes:
      images: one uint8 array (n, h, w, 3) where all sizes agree, else a list of
        uint8 arrays (h_i, w_i, 3). Never resized here.
      labels: int32 (n,), classes counted from 0.
      ids: one name per example that says where it came from.
    """

    images: UInt8[np.ndarray, "n h w 3"] | list[Image]
    labels: Int32[np.ndarray, " n"]
    ids: tuple[str, ...]

    def __post_init__(self):
        if not len(self.images) == len(self.labels) == len(self.ids):
            raise ValueError(
                f"{len(self.images)} images, {len(self.labels)} labels and "
                f"{len(self.ids)} ids: the three lengths must agree"
            )

    @classmethod
    def from_images(
        cls, images: Sequence[Image], labels: Sequence[int], ids: Sequence[str]
    ) -> "Examples":
        """Gathers single images, into one array if they all have the same size."""
        same_size = len({image.shape for image in images}) == 1
        return cls(
            images=np.stack(images) if same_size else list(images),
            labels=np.asarray(labels, np.int32),
            ids=tuple(ids),
        )

    @staticmethod
    def concatenate(a: "Examples", b: "Examples") -> "Examples":
        """The examples of `a`, then those of `b`."""
        labels, ids = np.concatenate([a.labels, b.labels]), a.ids + b.ids
        if a.uniform_size and b.uniform_size and a.images[0].shape == b.images[0].shape:
            return Examples(np.concatenate([a.images, b.images]), labels, ids)
        return Examples([*a.images, *b.images], labels, ids)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def uniform_size(self) -> bool:
        """Whether the images are one array (n, h, w, 3)."""
        return isinstance(self.images, np.ndarray)

    def fingerprint(self) -> str:
        """16 hex digits of a sha256 over ids, labels, image shapes and pixels.

        Depends on the order, not on which form `images` has.
        """
        digest = hashlib.sha256()
        for example_id, label, image in zip(
            self.ids, self.labels, self.images, strict=True
        ):
            # repr quotes the id, so that no two headers can run into each other
            digest.update(repr((example_id, int(label), image.shape)).encode())
            digest.update(image.tobytes())
        return digest.hexdigest()[:16]
