"""The tasks of a bank, and what each makes of its images.

A batch of a `Shelf` holds images of any of its tasks. An image that gets one answer is
one row of a batch; of one whose every pixel gets a class each window is
(`training.pixels`), and its windows are put together when all of them are there.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, UInt8

from vpt_jax import parallel
from vpt_jax.data import preprocess
from vpt_jax.data.examples import Image
from vpt_jax.network import Network
from vpt_jax.serving.shelf import Shelf
from vpt_jax.storage.paths import Folder
from vpt_jax.training import inputs, pixels

View = UInt8[np.ndarray, "_ _ 3"] | Float32[np.ndarray, "_ _ 3"] | pixels.Look
K = TypeVar("K")


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """One of the tasks of a bank; its tensors stay there as long as it is held.

    Attributes:
        name: In the bank.
        classes: Names of its C classes.
        manifest: Of its export.
        folder: Of its export.
        size: How many numbers were tuned.
        shelf, slot: Where its tensors are.
    """

    name: str
    classes: tuple[str, ...]
    manifest: dict
    folder: Folder
    size: int
    shelf: Shelf
    slot: int

    @property
    def network(self) -> Network:
        """The one of its shelf, which may have more classes."""
        return self.shelf.network

    @property
    def dense(self) -> bool:
        """Whether each pixel gets a class."""
        return self.network.objective.DENSE

    def view(self, image: Image) -> View:
        """An RGB image of any size as the task sees it: resized and cropped, or in
        windows."""
        network = self.network
        if self.dense:
            return pixels.look(network, image, network.inference.several)
        return preprocess.view(network.preset, image, network.image_size)

    @property
    def sees(self) -> tuple:
        """What tasks of one kind with equal views have in common."""
        network = self.network
        return network.preset, network.image_size, network.inference


def groups(tasks: Sequence[Task]) -> Iterator[list[int]]:
    """The numbers of tasks that are run together: all that give an image one answer,
    then a few at a time, as their windows take memory, those that label pixels."""
    dense = [n for n, task in enumerate(tasks) if task.dense]
    plain = [n for n, task in enumerate(tasks) if not task.dense]
    if plain:
        yield plain
    for start in range(0, len(dense), pixels.GROUP):
        yield dense[start : start + pixels.GROUP]


def run(asked: Sequence[tuple[Task, View]]) -> list[np.ndarray]:
    """What tasks make of what their `view` gave.

    Returns:
        Probabilities (C,) of the task's classes; or the class of each pixel (h, w).
    """
    found = dict[int, np.ndarray]()
    for numbers in groups([task for task, _ in asked]):
        work = _labels if asked[numbers[0]][0].dense else _probabilities
        found.update(work({n: asked[n] for n in numbers}))
    return [found[n] for n in range(len(asked))]


def _probabilities(asked: Mapping[K, tuple[Task, Any]]) -> Iterator[tuple[K, Any]]:
    for keys, outputs in inputs.behind(_started(asked)):
        for key, own in zip(keys, parallel.fetch(outputs), strict=False):
            task = asked[key][0]
            own = own[..., : len(task.classes)]
            yield key, task.network.objective.probabilities(own)


def _labels(asked: Mapping[K, tuple[Task, Any]]) -> Iterator[tuple[K, Any]]:
    windows = {
        (key, v, w): (task, window)
        for key, (task, look) in asked.items()
        for v, of_view in enumerate(look.windows)
        for w, window in enumerate(of_view)
    }
    logits = dict[tuple, Array]()
    for places, outputs in _started(windows):
        logits.update((place, outputs[row]) for row, place in enumerate(places))
    for key, (task, look) in asked.items():
        of_views = [
            jnp.stack([logits.pop((key, v, w)) for w in range(len(of_view))])
            for v, of_view in enumerate(look.windows)
        ]
        own = [x[None, ..., : len(task.classes)] for x in of_views]
        yield key, pixels.labels(look, own)[0]


def _started(asked: Mapping[K, tuple[Task, Any]]) -> Iterator[tuple[list[K], Array]]:
    """(whose images are in a batch, what the head gives), each batch of one shelf."""
    alike: dict[tuple, list[K]] = {}
    for key, (task, image) in asked.items():
        alone = None if task.shelf.mixes else task.slot
        alike.setdefault((id(task.shelf), alone, image.shape), []).append(key)
    for keys in alike.values():
        shelf = asked[keys[0]][0].shelf
        most = shelf.batches[-1]
        for start in range(0, len(keys), most):
            part = keys[start : start + most]
            images = np.stack([asked[key][1] for key in part])
            yield part, shelf.run([asked[key][0].slot for key in part], images)
