"""A backbone, what a method adds to it and a task's head: what training and serving
share. Nothing here knows of optimizers, epochs or trials."""

import dataclasses
import functools
from types import ModuleType

import jax
import jax.numpy as jnp
from flax import nnx

from vpt_jax import methods
from vpt_jax.checkpoints import Pretrained
from vpt_jax.data import preprocess
from vpt_jax.data.windows import Inference
from vpt_jax.model import FinalBias, Model, entry, first_trained_piece
from vpt_jax.types import Path, Tree, flatten, widened


@dataclasses.dataclass(frozen=True)
class Network:
    """All that is fixed of a tuned network, no tuned tensor among it.

    Attributes:
        pretrained: The backbone and its weights.
        method: The way of tuning, one or several at once.
        objective: Of `objectives.OBJECTIVES`.
        num_classes: C.
        image_size: Side in pixels that images are resized to.
        preset: Preprocessing of the images.
        head: Of `objective.HEADS`.
        inference: How images with a class for each pixel are seen.
        scan, remat: See `Model`.
        shard: Whether each device keeps only a part of the frozen weights.
        programs: What `training.programs` has made for it.
    """

    pretrained: Pretrained
    method: tuple[methods.Choice, ...]
    objective: ModuleType
    num_classes: int
    image_size: int
    preset: preprocess.Preset
    head: str = "linear"
    inference: Inference = Inference()
    scan: bool = False
    remat: bool = False
    shard: bool = False
    programs: dict = dataclasses.field(
        init=False, default_factory=dict, compare=False, repr=False
    )

    def build(self, key: jax.Array, params: Tree) -> Model:
        """The tuned model with fresh tensors from `key`."""
        backbone = nnx.merge(self.pretrained.graphdef, params)
        rngs = nnx.Rngs(key)
        make = self.objective.HEADS[self.head]
        head = make(backbone.width, self.num_classes, rngs)
        model = methods.build(backbone, head, self.method, rngs)
        model.scan, model.remat = self.scan, self.remat
        return model

    def split(self, model: Model):
        """(graphdef, trainable, frozen, stats)."""
        return methods.split(model, self.method)

    @functools.cached_property
    def _plain(self) -> tuple[nnx.GraphDef, Tree, Tree, Tree, frozenset[Path]]:
        """The parts of a model, and the paths of its final biases."""
        params, fixed = self.pretrained.params, []

        def make(params: Tree) -> tuple[Tree, Tree, Tree]:
            model = self.build(jax.random.key(0), params)
            graphdef, *groups = self.split(model)
            biases = flatten(nnx.as_pure(nnx.state(model, FinalBias)))
            fixed.extend((graphdef, frozenset(biases)))
            return tuple(groups)

        shapes = isinstance(jax.tree.leaves(params)[0], jax.ShapeDtypeStruct)
        groups = jax.eval_shape(make, params) if shapes else make(params)
        graphdef, biases = fixed
        return graphdef, *groups, biases

    @functools.cached_property
    def parts(self) -> tuple[nnx.GraphDef, Tree, Tree, Tree]:
        """(graphdef, trainable, frozen, stats) with shapes; `frozen` has the arrays of
        the backbone, if that has any."""
        graphdef, trainable, frozen, stats, _ = self._plain
        shapes = functools.partial(
            jax.eval_shape, functools.partial(jax.tree.map, widened)
        )
        return graphdef, shapes(trainable), frozen, shapes(stats)

    @property
    def final_biases(self) -> frozenset[Path]:
        """Of the heads' last layers, which SGD does not decay."""
        return self._plain[-1]

    @property
    def varies(self) -> bool:
        """Whether training images are different in every epoch."""
        return self.preset.augment or self.objective.DENSE

    @property
    def served(self) -> "Network":
        """What is left of it when it is trained."""
        head = self.objective.SERVED.get(self.head, self.head)
        return self if head == self.head else dataclasses.replace(self, head=head)

    @functools.cached_property
    def first_trained(self) -> int:
        """The pieces before the first trained tensor."""
        size = self.image_size
        images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
        return first_trained_piece(*self.parts, images)

    def normalised(self, raw: jax.Array, size: int | None = None) -> jax.Array:
        """Images (B, h, w, 3), uint8 or already resized, as the backbone takes them:
        of `image_size`, or of another `size`."""
        resized = preprocess.resize_device(raw, size or self.image_size)
        return preprocess.normalize(resized, self.preset)


def trained_weights(
    graphdef: nnx.GraphDef,
    shapes: Tree,
    method: tuple[methods.Choice, ...],
    objective: ModuleType,
    head: str,
    num_classes: int,
) -> frozenset[Path]:
    """Paths in a plain backbone of the weights that a method trains; computes nothing.

    Args:
        graphdef, shapes: The split backbone.
        method, objective, head, num_classes: See `Network`.
    """
    found = set()

    def trace(params: Tree, key: jax.Array) -> None:
        backbone, rngs = nnx.merge(graphdef, params), nnx.Rngs(key)
        # Known by identity, as a method may wrap a layer, which moves its weights.
        plain = {
            id(node): path
            for path, node in nnx.iter_graph(backbone)
            if isinstance(node, nnx.Variable)
        }
        on_top = objective.HEADS[head](backbone.width, num_classes, rngs)
        model = methods.build(backbone, on_top, method, rngs)
        for path in flatten(methods.split(model, method)[1]):
            variable = id(functools.reduce(entry, path, model))
            if variable in plain:
                found.add(plain[variable])

    jax.eval_shape(trace, shapes, jax.random.key(0))
    return frozenset(found)
