"""A backbone, what a method adds to it, and a head, as one network in pieces.

    piece 0      images   -> tokens    edits' `on_images`, then `backbone.embed`
    piece 1..S   tokens   -> tokens    `backbone.pieces`: the blocks, each after the
                                       edits' `before_block`, and what is between stages
    piece S+1    tokens   -> features  `backbone.pool`
    piece S+2    features -> outputs   `head`

The last of the backbone's pieces computes only the tokens that `pool` reads. A
`DenseHead` takes in place of the features the image's tokens behind some of the blocks.

The pieces before the first trained tensor give the same result in every epoch, so they
can be run once and cached; `first_trained_piece` finds that cut from the computation.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding
from jaxtyping import Array, Float

from vpt_jax.errors import UserError
from vpt_jax.types import Backbone, Key, Path, Tree, fold, widened


class FinalBias(nnx.Param):
    """The bias of a head's last layer, which SGD does not decay (public code,
    `src/solver/optimizer.py:60`), wherever a method has put that head."""


class LinearHead(nnx.Linear):
    """The public code's head: weights N(0, 2 / C), biases -log(99).

    Source: `src/models/mlp.py:53-57` of KMnP/vpt (kaiming normal, fan out).
    """

    def __init__(self, width: int, num_classes: int, *, rngs: nnx.Rngs):
        super().__init__(
            width,
            num_classes,
            kernel_init=nnx.initializers.normal(math.sqrt(2 / num_classes)),
            param_dtype=jnp.result_type(float),
            rngs=rngs,
        )
        start = jnp.full(num_classes, -math.log(99), jnp.result_type(float))
        self.bias = FinalBias(start)

    def __call__(self, features, *, key=None, train=False, mask=None):
        return super().__call__(widened(features))


class DenseHead(nnx.Module):
    """A head that reads the tokens of the image, [patches], behind some of the blocks.

    The backbone's final norm is left out. Called with a tuple (B, N, D) of them, in the
    order of `taps`.
    """

    def taps(self, depth: int) -> tuple[int, ...]:
        """The numbers of these blocks, of `depth`; ascending, the last one last."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Context:
    """What an edit may use besides its own tensors.

    Attributes:
        backbone: The network that is edited.
        key: Feeds dropout; None at inference.
        train: Whether dropout is on.
    """

    backbone: Backbone
    key: Key | None
    train: bool


class Edit(nnx.Module):
    """What a method does between the pieces of a backbone; by default nothing."""

    def on_images(self, images: Float[Array, "B h w 3"], context: Context):
        """Change the normalised images before `embed`."""
        return images

    def layer(self, i: int) -> tuple[str, Tree] | None:
        """What is done before block `i` of L, by name, and the tensors it needs."""
        return None

    def change(
        self, name: str, tensors: Tree, tokens: Float[Array, "B N D"], context: Context
    ) -> Float[Array, "B M D"]:
        """Do to the tokens what `layer` gave."""
        raise NotImplementedError

    def before_block(self, i: int, tokens: Float[Array, "B ... D"], context: Context):
        """The tokens that block `i` sees."""
        layer = self.layer(i)
        return tokens if layer is None else self.change(*layer, tokens, context)


class Model(nnx.Module):
    """Images (B, h, w, 3), already normalised, to what the head gives: of a linear one
    logits (B, C) in float32.

    Attributes:
        backbone, head: The network; a method may wrap parts of it or replace the head.
        edits: What methods do between its pieces, by name.
        reads: The tokens of which `pool` makes the features.
        taps: Numbers of the blocks whose image tokens the head reads instead; () for a
            head that reads features.
        scan: Compile successive blocks of the same kind as one loop: the time to
            compile no longer grows with depth. The same numbers to rounding.
        remat: Keep only each block's input for the backward pass and compute the rest
            again: less memory, about a third more time.
        gather: How the weights of a block lie while it runs, where they are kept in
            parts; None where they are kept whole.
    """

    def __init__(self, backbone: Backbone, head: nnx.Module):
        self.backbone: Backbone = backbone
        self.edits = nnx.Dict({})
        self.head: Backbone = head
        dense = isinstance(head, DenseHead)
        self.taps = head.taps(len(backbone.blocks)) if dense else ()
        self.reads = slice(None) if dense else backbone.reads
        self.scan = self.remat = False
        self.gather: NamedSharding | None = None

    def add_edit(self, name: str, edit: Edit) -> None:
        """Add what a method does between pieces.

        Raises:
            UserError: Another method already does something of this name.
        """
        if name in self.edits:
            raise UserError(
                f"two of the methods change the network in the same place ({name}); "
                "name one of them only"
            )
        self.edits[name] = edit

    @property
    def num_pieces(self) -> int:
        """S + 3: embed, the backbone's pieces, pool, head."""
        return len(self.backbone.pieces) + 3

    def __call__(
        self,
        images: Float[Array, "B h w 3"],
        *,
        key: Key | None = None,
        train: bool = False,
        mask: Float[Array, " B"] | None = None,
    ) -> Tree:
        """Outputs. `mask` is 0 for rows that only fill up a batch (for statistics)."""
        return self.suffix(images, 0, key=key, train=train, mask=mask)

    def prefix(self, images: Float[Array, "B h w 3"], cut: int) -> Tree:
        """The activations after the first `cut` pieces, as at inference."""
        return self._run(images, 0, cut)

    def suffix(self, activations: Array, cut: int, **kwargs) -> Tree:
        """The outputs from what `prefix(images, cut)` gave; with `taps`, cut is 0."""
        return self._run(activations, cut, self.num_pieces, **kwargs)

    def unread(self, path: Path) -> bool:
        """Whether a leaf belongs to what follows the blocks and a tapped head skips."""
        return bool(self.taps) and path[0] == "backbone" and path[1] in ("norm", "head")

    def _run(self, x, start, stop, *, key=None, train=False, mask=None):
        piece, tapped, pool = start, (), len(self.backbone.pieces) + 1
        image_tokens = self._image_tokens(x) if self.taps else 0
        while piece < stop:
            if self.taps and piece == pool:
                x, piece = tapped, piece + 1
                continue
            end = self._alike(piece, stop) if self.scan else piece + 1
            if end - piece > 1:
                x = self._loop(piece, end, x, key=key, train=train)
            else:
                own = {"key": fold(key, piece), "train": train, "mask": mask}
                x = self._piece(piece, x, **own)
            piece = end
            if (block := piece - 2) in self.taps:  # no stages: piece i + 1 is block i
                tapped += self.taps.count(block) * (x[:, -image_tokens:],)
        return x

    def _image_tokens(self, images: Float[Array, "B h w c"]) -> int:
        """How many of the last tokens are those of the image."""
        _, height, width, _ = images.shape
        return height * width // self.backbone.config.patch**2

    def _piece(self, piece, x, *, key, train, mask):
        own = {"key": fold(key, 0), "train": train}
        if self.backbone.has_statistics:
            own["mask"] = mask
        if piece == 0:
            for edit, context in self._edits(key, train):
                x = edit.on_images(x, context)
            with jax.named_scope("embed"):
                return self.backbone.embed(x, **own)
        last = len(self.backbone.pieces)
        if piece <= last:
            block = self._block(piece)
            with jax.named_scope("edits"):
                for edit, context in self._edits(key, train):
                    x = x if block is None else edit.before_block(block, x, context)
            read = self.reads if piece == last else slice(None)
            module = self.backbone.pieces[piece - 1]

            def run(x):
                here = self._whole(*nnx.split(module)) if self.gather else module
                return here(x, read=read, **own)

            return self._saving(run)(x)
        if piece == last + 1:
            with jax.named_scope("pool"):
                return self.backbone.pool(x)
        with jax.named_scope("head"):
            return self.head(x, key=fold(key, 0), train=train, mask=mask)

    def _saving(self, run):
        """`run`, with only that kept for its backward pass which there is room for."""
        if self.remat:
            return jax.checkpoint(run)
        if self.gather:
            return jax.checkpoint(run, policy=_kept_beside_parts)
        return run

    def _whole(self, graphdef: nnx.GraphDef, state: Tree) -> nnx.Module:
        """A block with its weights gathered."""
        if self.gather:
            state = jax.lax.with_sharding_constraint(state, self.gather)
        return nnx.merge(graphdef, state)

    def _edits(self, key, train) -> list[tuple[Edit, Context]]:
        return [
            (edit, Context(self.backbone, fold(key, n + 1), train))
            for n, edit in enumerate(self.edits.values())
        ]

    def _block(self, piece: int) -> int | None:
        """The number of the block that `piece` runs; None between two stages."""
        module = self.backbone.pieces[piece - 1]
        numbers = [i for i, b in enumerate(self.backbone.blocks) if b is module]
        return numbers[0] if numbers else None

    def _alike(self, start: int, stop: int) -> int:
        """The end of the pieces from `start` that differ in their tensors only."""
        stop = min(stop, len(self.backbone.pieces))  # the last one reads fewer tokens
        stop = min([stop, *(tap + 2 for tap in self.taps if tap + 2 > start)])
        end = start + 1
        if 1 <= start < stop:
            like = self._kind(start)
            while like is not None and end < stop and self._kind(end) == like:
                end += 1
        return end

    def _kind(self, piece: int):
        """What a piece does, apart from the values of its tensors."""
        block = self._block(piece)
        if block is None or self.backbone.has_statistics:
            return None
        graphdef, tensors = self._tensors(piece)
        layers = [edit.layer(block) for edit in self.edits.values()]
        names = [layer and layer[0] for layer in layers]
        shapes = jax.tree.map(lambda x: (x.shape, x.dtype), tensors)
        return graphdef, names, shapes

    def _tensors(self, piece: int) -> tuple[nnx.GraphDef, Tree]:
        """The block of a piece and what the edits need before it."""
        graphdef, state = nnx.split(self.backbone.pieces[piece - 1])
        layers = [edit.layer(self._block(piece)) for edit in self.edits.values()]
        return graphdef, (nnx.as_pure(state), [layer and layer[1] for layer in layers])

    def _loop(self, start, stop, x, *, key, train):
        """Steps `start` to `stop`, all of one kind, as one loop."""
        graphdef, _ = self._tensors(start)
        block = self._block(start)
        names = [(e.layer(block) or (None,))[0] for e in self.edits.values()]

        def run(x, piece, tensors):
            state, layers = tensors
            folded = fold(key, piece)
            edits = zip(self._edits(folded, train), names, layers, strict=True)
            for (edit, context), name, layer in edits:
                if name is not None:
                    x = edit.change(name, layer, x, context)
            block = self._whole(graphdef, state)
            return block(x, key=fold(folded, 0), train=train)

        run = self._saving(run)
        each = [self._tensors(piece)[1] for piece in range(start, stop)]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
        pieces = jnp.arange(start, stop)
        return jax.lax.scan(lambda x, own: (run(x, *own), None), x, (pieces, stacked))[
            0
        ]


def _kept_beside_parts(primitive, *_, **__) -> bool:
    """What a block keeps for its backward pass: all but gathered weights, as they are
    or in another type, which are gathered again."""
    return primitive.name not in ("sharding_constraint", "convert_element_type")


def owner(model: Model, path: Path) -> nnx.Module:
    """The module that a leaf's path leads to."""
    *_, last = _way(model, path)
    return last


def _way(model: Model, path: Path) -> Iterator[nnx.Module]:
    """The modules from the model to the one that owns a leaf."""
    module = model
    yield module
    for part in path[:-1]:
        module = entry(module, part)
        yield module


def entry(module: Any, part: str | int) -> Any:
    """What a module has at one part of a path."""
    by_name = isinstance(part, str) and not isinstance(module, nnx.Dict)
    return getattr(module, str(part)) if by_name else module[part]


def inside(model: Model, path: Path, modules: Iterable[nnx.Module]) -> bool:
    """Whether a leaf's path leads through one of `modules`."""
    return any(here is module for here in _way(model, path) for module in modules)


def merged_backbone(model: Model) -> nnx.Module:
    """The backbone as a plain network that has taken up all that was tuned in it.

    `model` is used up. Wrappers with a `merged()` give the layer that does the same.

    Raises:
        UserError: A method works outside the backbone's own layers.
    """
    if len(model.edits):
        raise UserError(
            f"what the method adds ({', '.join(model.edits)}) cannot be merged into "
            "the backbone; set config.export_backbone=False"
        )
    for _, module in list(nnx.iter_modules(model.backbone)):
        for name, child in list(vars(module).items()):
            if hasattr(child, "merged"):
                setattr(module, name, child.merged())
    return model.backbone


def first_trained_piece(graphdef, trainable: Tree, frozen: Tree, stats: Tree, images):
    """The number of leading pieces that no trained tensor and no random key reaches.

    Each piece is traced with abstract values, and the inputs that its output can depend
    on are followed through the jaxpr (a nested computation counts as a whole).

    Args:
        graphdef, trainable, frozen, stats: The split model; shapes suffice.
        images: Shape of a normalised batch, (B, h, w, 3).

    Returns:
        A `cut` for `Model.prefix`, at least 0 and at most `num_pieces - 1`.
    """
    num_pieces = nnx.merge(graphdef, trainable, frozen, stats).num_pieces
    x = images
    for piece in range(num_pieces - 1):

        def run(moving, frozen, x, piece=piece):
            trainable, stats, key = moving
            model = nnx.merge(graphdef, trainable, frozen, stats)
            return model._piece(piece, x, key=key, train=True, mask=None)

        moving = (trainable, stats, jax.eval_shape(lambda: jax.random.key(0)))
        jaxpr, out = jax.make_jaxpr(run, return_shape=True)(moving, frozen, x)
        if _depends(jaxpr.jaxpr, len(jax.tree.leaves(moving))):
            return piece
        x = out
    return num_pieces - 1


def _depends(jaxpr, num_inputs: int) -> bool:
    """Whether an output of `jaxpr` can depend on one of its first inputs."""
    reached = set(jaxpr.invars[:num_inputs])
    for equation in jaxpr.eqns:
        if any(not hasattr(v, "val") and v in reached for v in equation.invars):
            reached.update(equation.outvars)
    return any(not hasattr(v, "val") and v in reached for v in jaxpr.outvars)
