"""Examples that stay where they are until they are asked for.

A `Source` knows how many examples there are and what they are called; only `read`
decodes images, and only those whose numbers it is given. Test sets of 70,000 images and
training sets that are streamed need no more memory than what is read at a time. Sources
pickle, for worker processes, and may be read from several threads.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from jaxtyping import Int32

from vpt_jax.data.examples import Examples, Image, Indices, Source
from vpt_jax.data.images import read_image

THREADS, AHEAD = 16, 64  # that read; images that wait to be used
FINGERPRINTED = 1000
T = TypeVar("T")


def ahead(function: Callable[[int], T], start: int, stop: int) -> Iterator[T]:
    """`function(start)` to `function(stop - 1)`, in order, computed ahead by Grain.

    In threads: Pillow lets go of Python's lock while it decodes and resizes, and no
    process is forked after JAX has started its own threads. `AHEAD` results wait at
    most, so memory does not grow with the number of images.
    """
    import grain  # a slow import that only tasks with files need

    numbers = grain.MapDataset.range(start, stop).map(function)
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD)
    iterator = iter(numbers.to_iter_dataset(options))
    try:
        yield from iterator
    finally:
        iterator.close()


def to_examples(source: Source) -> Examples:
    """All of a source, decoded."""
    images = list(ahead(lambda index: source.read([index])[0], 0, len(source)))
    return Examples.from_images(images, source.labels, source.ids)


def fingerprint(source: Source) -> str:
    """16 hex digits of a sha256 over all ids and labels and the first images' pixels.

    It depends on the order. The `FINGERPRINTED` first images are all there are in
    VTAB-1k; of larger sets the pixels of the others are left out.
    """
    digest = hashlib.sha256()
    names = list(zip(source.ids, source.labels.tolist(), strict=True))
    seen = min(len(names), FINGERPRINTED)
    for index, image in enumerate(ahead(lambda i: source.read([i])[0], 0, seen)):
        # repr quotes the id, so that no two headers can run into each other
        digest.update(repr((*names[index], image.shape)).encode())
        digest.update(image.tobytes())
    for name in names[seen:]:
        digest.update(repr(name).encode())
    return digest.hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Files(Source):
    """One image file per example."""

    paths: tuple[pathlib.Path, ...]
    labels: Int32[np.ndarray, "n *t"]
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Indices) -> list[Image]:
        """See `Source`; UserError names the file that cannot be decoded."""
        return [read_image(self.paths[index]) for index in indices]

    def select(self, indices: Indices) -> "Files":
        """See `Source`."""
        return Files(
            tuple(self.paths[index] for index in indices),
            self.labels[np.asarray(indices, np.int64)],
            tuple(self.ids[index] for index in indices),
        )


@dataclasses.dataclass(frozen=True)
class Joined(Source):
    """The examples of one source, then those of another."""

    first: Source
    second: Source

    @property
    def labels(self) -> Int32[np.ndarray, "n *t"]:
        return np.concatenate([self.first.labels, self.second.labels])

    @property
    def ids(self) -> tuple[str, ...]:
        return self.first.ids + self.second.ids

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def read(self, indices: Indices) -> list[Image]:
        """See `Source`."""
        border = len(self.first)
        pairs = (
            (self.first, i) if i < border else (self.second, i - border)
            for i in indices
        )
        return [image for source, index in pairs for image in source.read([index])]

    def select(self, indices: Indices) -> Source:
        """See `Source`; the chosen ones of the first source must come first."""
        border = len(self.first)
        first = [index for index in indices if index < border]
        second = [index - border for index in indices if index >= border]
        if list(indices) != first + [index + border for index in second]:
            raise ValueError("indices mix the two sources")
        if not second:
            return self.first.select(first)
        if not first:
            return self.second.select(second)
        return Joined(self.first.select(first), self.second.select(second))
