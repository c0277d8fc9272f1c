"""One tuned model that gives each pixel a class."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jaxtyping import UInt8

from vpt_jax.data.examples import Examples, Image
from vpt_jax.data.source import Source
from vpt_jax.serving.classifier import Classifier
from vpt_jax.training import pixels
from vpt_jax.training.judge import judge
from vpt_jax.types import Tree


def numbers(manifest: dict) -> tuple[int, ...]:
    """What masks of the task of an export call its classes."""
    return tuple(manifest.get("numbers", range(len(manifest["classes"]))))


@dataclasses.dataclass(frozen=True)
class Segmenter(Classifier):
    """A backbone with what was tuned on it; `network.inference` says how it looks."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """What masks of the task call the classes."""
        return numbers(self.manifest)

    def predict(self, images: Sequence[Image]) -> list[UInt8[np.ndarray, "_ _"]]:
        """The class, 0 to C - 1, of each pixel of RGB images of any sizes."""
        ids = tuple(str(n) for n in range(len(images)))
        examples = Examples(list(images), np.zeros(len(images), np.int32), ids)
        return [labels for _, labels in self.labelled(examples)]

    def labelled(self, images: Source) -> Iterator[tuple[Image, np.ndarray]]:
        """Each image as it is read, and its labels."""
        several = self.network.inference.several
        parts = self._mesh, self._tuned, self._frozen
        found = pixels.labelled(self.network, *parts, images, several)
        return ((image, labels[0]) for image, labels in found)

    def scores(self, images: Source) -> dict:
        """Every score on images with masks, by name."""
        parts = self._mesh, self._tuned, self._frozen
        [found] = judge(self.network, *parts, images, alive=np.ones(1, bool)).scores
        return found

    @property
    def _tuned(self) -> tuple[Tree, Tree]:
        """With a trial axis."""
        one = functools.partial(jax.tree.map, lambda x: x[None])
        return one(self.trainable), one(self.stats)
