"""Axis letters and array types that signatures share.

Axes, in every docstring and signature of the package:

| letter | meaning                       | letter | meaning                  |
|--------|-------------------------------|--------|--------------------------|
| T      | trials (lr, wd, seed) at once | H      | attention heads          |
| B      | batch                         | L      | layers (blocks)          |
| N      | tokens                        | C      | classes                  |
| P      | prompt tokens                 | h w    | image height, width [px] |
| D      | width of a token or feature   |        |                          |
"""

import json
import math
from typing import Any

import jax
import jax.numpy as jnp

Path = tuple[str | int, ...]
"""Where a parameter lives in a module, e.g. ('backbone', 'blocks', 0, 'attn')."""

Tree = Any
"""A pytree of arrays (parameters, statistics, optimizer state)."""

Device = Any
"""A jax.Device, which need not be there."""

Config = Any
"""An ml_collections ConfigDict: what its entries are, no type checker can know."""

Backbone = Any
"""A backbone, or a part of one: `vpt_jax/backbones/__init__.py` says what it offers."""

Size = Any
"""A number of images: an int, or a symbol in a program for any number of them."""

Key = jax.Array
"""A JAX random key."""


def path_name(path: Path) -> str:
    """'backbone.blocks.0.attn.query.kernel' for a path."""
    return ".".join(map(str, path))


def fold(key: Key | None, number: int | jax.Array) -> Key | None:
    """An independent key for part `number`; None (inference) stays None."""
    return None if key is None else jax.random.fold_in(key, number)


def flatten(tree: Tree) -> dict[Path, Any]:
    """Leaves of a nested mapping by path, in the tree's own order."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {tuple(entry.key for entry in path): leaf for path, leaf in leaves}


def unflatten(like: Tree, leaves: dict[Path, Any]) -> Tree:
    """A tree of the structure of `like` with `leaves` by path."""
    structure = jax.tree.structure(like)
    return jax.tree.unflatten(structure, [leaves[path] for path in flatten(like)])


def widened(x: jax.Array) -> jax.Array:
    """At least float32: bfloat16 becomes float32, float64 stays."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def literal(text: str):
    """A number, list or truth value where the text is one, else the text."""
    try:
        return json.loads(text.lower())
    except json.JSONDecodeError:
        return text


def count(tree: Tree) -> int:
    """Number of array elements in a tree."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
