"""A backbone, what a method adds to it, and a head, as one network in steps.

    step 0      images   -> tokens     edits' `on_images`, then `backbone.embed`
    step 1..L   tokens   -> tokens     edits' `before_block`, then `backbone.blocks[i]`
    step L+1    tokens   -> features   edits' `before_pool`, then `backbone.pool`
    step L+2    features -> logits     `head`

The steps before the first trained tensor give the same result in every epoch, so they
can be run once and cached; `first_trained_step` finds that cut from the computation.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vpt_jax.types import Key, Tree, fold, widened


class LinearHead(nnx.Linear):
    """The public code's head: weights N(0, 2 / C), biases -log(99).

    Source: `src/models/mlp.py:53-57` of KMnP/vpt (kaiming normal, fan out).
    """

    def __init__(self, width: int, num_classes: int, *, rngs: nnx.Rngs):
        super().__init__(
            width,
            num_classes,
            kernel_init=nnx.initializers.normal(math.sqrt(2 / num_classes)),
            bias_init=nnx.initializers.constant(-math.log(99)),
            param_dtype=jnp.result_type(float),
            rngs=rngs,
        )

    def __call__(self, features, *, key=None, train=False, mask=None):
        return super().__call__(widened(features))


class Edit(nnx.Module):
    """What a method does between the steps of a backbone; by default nothing.

    `key` (None at inference) feeds dropout and `train` says whether it is on.
    """

    def on_images(self, images: Float[Array, "B h w 3"], *, key, train):
        """Change the normalised images before `embed`."""
        return images

    def before_block(self, i: int, tokens: Float[Array, "B N D"], *, key, train):
        """Change the tokens before block `i` of L."""
        return tokens

    def before_pool(self, tokens: Float[Array, "B N D"], *, key, train):
        """Change the tokens after the last block."""
        return tokens


class Model(nnx.Module):
    """Images (B, h, w, 3), already normalised, to logits (B, C) in float32."""

    def __init__(self, backbone: nnx.Module, head: nnx.Module):
        self.backbone = backbone
        self.edits = nnx.Dict({})
        self.head = head

    @property
    def num_steps(self) -> int:
        """L + 3: embed, the blocks, pool, head."""
        return len(self.backbone.blocks) + 3

    def __call__(
        self,
        images: Float[Array, "B h w 3"],
        *,
        key: Key | None = None,
        train: bool = False,
        mask: Float[Array, " B"] | None = None,
    ) -> Float[Array, "B C"]:
        """Logits. `mask` is 0 for rows that only fill up a batch (for statistics)."""
        return self.suffix(images, 0, key=key, train=train, mask=mask)

    def prefix(self, images: Float[Array, "B h w 3"], cut: int) -> Array:
        """The activations after the first `cut` steps, as at inference."""
        return self._run(images, 0, cut)

    def suffix(self, activations: Array, cut: int, **kwargs) -> Float[Array, "B C"]:
        """The logits from what `prefix(images, cut)` gave."""
        return self._run(activations, cut, self.num_steps, **kwargs)

    def _run(self, x, start, stop, *, key=None, train=False, mask=None):
        for step in range(start, stop):
            x = self._step(step, x, key=fold(key, step), train=train, mask=mask)
        return x

    def _step(self, step, x, *, key, train, mask):
        depth = len(self.backbone.blocks)
        edits = [
            (edit, {"key": fold(key, n + 1), "train": train})
            for n, edit in enumerate(self.edits.values())
        ]
        context = {"key": fold(key, 0), "train": train}
        if step == 0:
            for edit, kwargs in edits:
                x = edit.on_images(x, **kwargs)
            return self.backbone.embed(x, **context)
        if step <= depth:
            for edit, kwargs in edits:
                x = edit.before_block(step - 1, x, **kwargs)
            return self.backbone.blocks[step - 1](x, **context)
        if step == depth + 1:
            for edit, kwargs in edits:
                x = edit.before_pool(x, **kwargs)
            return self.backbone.pool(x)
        return self.head(x, mask=mask, **context)


def first_trained_step(graphdef, trainable: Tree, frozen: Tree, stats: Tree, images):
    """The number of leading steps that no trained tensor and no random key reaches.

    Each step is traced with abstract values, and the inputs that its output can depend
    on are followed through the jaxpr (a nested computation counts as a whole).

    Args:
        graphdef, trainable, frozen, stats: The split model; shapes suffice.
        images: Shape of a normalised batch, (B, h, w, 3).

    Returns:
        A `cut` for `Model.prefix`, at least 0 and at most `num_steps - 1`.
    """
    num_steps = nnx.merge(graphdef, trainable, frozen, stats).num_steps
    x = images
    for step in range(num_steps - 1):

        def run(moving, frozen, x, step=step):
            trainable, stats, key = moving
            model = nnx.merge(graphdef, trainable, frozen, stats)
            return model._step(step, x, key=key, train=True, mask=None)

        moving = (trainable, stats, jax.eval_shape(lambda: jax.random.key(0)))
        jaxpr, out = jax.make_jaxpr(run, return_shape=True)(moving, frozen, x)
        if _depends(jaxpr.jaxpr, len(jax.tree.leaves(moving))):
            return step
        x = out
    return num_steps - 1


def _depends(jaxpr, num_inputs: int) -> bool:
    """Whether an output of `jaxpr` can depend on one of its first inputs."""
    reached = set(jaxpr.invars[:num_inputs])
    for equation in jaxpr.eqns:
        if any(not hasattr(v, "val") and v in reached for v in equation.invars):
            reached.update(equation.outvars)
    return any(not hasattr(v, "val") and v in reached for v in jaxpr.outvars)
