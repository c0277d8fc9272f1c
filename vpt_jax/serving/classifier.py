"""One tuned model that classifies images."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float, UInt8

from vpt_jax import parallel
from vpt_jax.data.examples import Examples, Image
from vpt_jax.data.source import Source
from vpt_jax.network import Network
from vpt_jax.training import judge, programs
from vpt_jax.types import Tree

MAX_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A backbone with what was tuned on it.

    Images run in batches of powers of two, so that one image costs one, and any number
    of images needs few programs.

    Attributes:
        network: The network's parts and preprocessing.
        trainable, stats: The tuned tensors, without a trial axis.
        classes: Names of the C classes.
        manifest: Of the export.
        max_batch: The most images at once, a power of two.
    """

    network: Network
    trainable: Tree
    stats: Tree
    classes: tuple[str, ...]
    manifest: dict
    max_batch: int = MAX_BATCH

    def __post_init__(self):
        if self.max_batch < 1 or self.max_batch & (self.max_batch - 1):
            raise ValueError(f"max_batch {self.max_batch} must be a power of two")

    def predict(
        self, images: Sequence[Image] | UInt8[np.ndarray, "n h w 3"]
    ) -> Float[np.ndarray, "n C"]:
        """Class probabilities of RGB images of any sizes."""
        if not len(images):
            return np.zeros((0, len(self.classes)), np.float32)
        ids = [str(n) for n in range(len(images))]
        examples = Examples.from_images(list(images), [0] * len(images), ids)
        return self.network.objective.probabilities(self.outputs(examples))

    def looking(self, several: bool) -> "Classifier":
        """One that looks at images at several scales, or at one."""
        looks = dataclasses.replace(self.network.inference, several=several)
        network = dataclasses.replace(self.network, inference=looks)
        return dataclasses.replace(self, network=network)

    def scores(self, images: Source) -> dict:
        """Every score on labelled images, by name."""
        return self.network.objective.score(self.outputs(images), images.labels)

    def outputs(self, images: Source) -> np.ndarray:
        """What the head gives for each image, (n, ...)."""
        whole = len(images) - len(images) % self.max_batch
        parts = [(range(whole), self.max_batch)] if whole else []
        if whole < len(images):
            rest = range(whole, len(images))
            parts.append((rest, max(1 << (len(rest) - 1).bit_length(), self._least)))
        found = [self._run(images.select(part), batch) for part, batch in parts]
        return np.concatenate(found)

    @functools.cached_property
    def _mesh(self) -> jax.sharding.Mesh:
        return parallel.make_mesh(1, self.max_batch)

    @property
    def _least(self) -> int:
        """Images that the devices share evenly."""
        return self._mesh.size

    @functools.cached_property
    def _frozen(self) -> Tree:
        return programs.place_frozen(self.network, self._mesh)

    def _run(self, images: Source, batch: int) -> np.ndarray:
        one = functools.partial(jax.tree.map, lambda x: x[None])
        tuned = one(self.trainable), one(self.stats)
        outputs = programs.make_outputs(self.network, self._mesh)
        of_trials = judge.predict(
            self.network, outputs, tuned, self._frozen, images, batch
        )
        return of_trials[0]
