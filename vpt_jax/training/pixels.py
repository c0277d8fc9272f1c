"""Images of any size to a class for each pixel: the programs, and what feeds them.

    host      decode, cut into windows (`data.windows`), in threads
    device    windows of several images -> logits, in batches of one size
              logits of an image -> a tile of labels, from matrices that are arguments

Shapes depend on the windows and on the number of windows, never on the size of an
image, so few programs serve all.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, UInt8

from vpt_jax import parallel
from vpt_jax.bilinear import matrix
from vpt_jax.data import windows
from vpt_jax.data.examples import Image
from vpt_jax.data.source import Source, ahead
from vpt_jax.model import Model
from vpt_jax.network import Network
from vpt_jax.training.programs import once
from vpt_jax.training.step import merged
from vpt_jax.types import Tree

BATCH = 8  # windows that go through the network at once
GROUP = 8  # images whose windows share batches
TILE = 256  # pixels of a side that are labelled at once
Tuned = tuple[Tree, Tree]
Labels = UInt8[np.ndarray, "T _ _"]


class Look(NamedTuple):
    """How an image is seen.

    Attributes:
        extents: Its height and width [px].
        views: Of it.
        windows: Of each view, in the order of `View.cut`.
    """

    extents: tuple[int, int]
    views: Sequence[windows.View]
    windows: list[Float32[np.ndarray, "_ _ _ 3"]]


def labelled(
    network: Network,
    mesh: Mesh,
    tuned: Tuned,
    frozen: Tree,
    source: Source,
    several: bool = False,
) -> Iterator[tuple[Image, Labels]]:
    """Every image of a source, as it is read, and the class of each of its pixels.

    Args:
        network, mesh: What labels, and where.
        tuned: (trainable, stats), with a trial axis.
        frozen: On the devices.
        source: The images.
        several: Whether to look at several scales, each mirrored as well.
    """

    def seen(index: int) -> tuple[Image, Look]:
        [image] = source.read([index])
        return image, look(network, image, several)

    images = ahead(seen, 0, len(source))
    while group := [found for _, found in zip(range(GROUP), images, strict=False)]:
        cut = [looked.windows for _, looked in group]
        logits = _logits(network, mesh, tuned, frozen, cut)
        for (image, looked), of_views in zip(group, logits, strict=True):
            yield image, labels(looked, of_views)


def look(network: Network, image: Image, several: bool) -> Look:
    """An image as a network sees it, at one scale or at several."""
    height, width, _ = image.shape
    views = _views(network, height, width, several)
    return Look((height, width), views, [view.cut(image[..., :3]) for view in views])


def sides(network: Network) -> tuple[int, ...]:
    """Of the windows of any image [px]."""
    views = _views(network, 1, 1, network.inference.several)
    return tuple(sorted({view.window for view in views}))


def _views(network: Network, height: int, width: int, several: bool):
    patch = network.pretrained.config.patch  # pyright: ignore[reportAttributeAccessIssue]
    size = network.image_size, patch
    return windows.views(height, width, *size, network.inference, several)


def _logits(network: Network, mesh: Mesh, tuned, frozen, cut: list) -> list[list]:
    """(T, n, m, m, C) for each view of each image: windows of a size share batches."""
    found: list[list] = [[None] * len(of_image) for of_image in cut]
    places: dict[int, list[tuple[int, int]]] = {}
    for i, of_image in enumerate(cut):
        for v, of_view in enumerate(of_image):
            places.setdefault(of_view.shape[1], []).append((i, v))
    for window, those in places.items():
        run = make_windows(network, mesh, window)
        every = np.concatenate([cut[i][v] for i, v in those])
        batch = math.lcm(BATCH, mesh.size)
        fill = -len(every) % batch
        every = np.pad(every, [(0, fill), *[(0, 0)] * 3], mode="edge")
        parts = [
            run(*tuned, frozen, every[n : n + batch])
            for n in range(0, len(every), batch)
        ]
        whole, start = jnp.concatenate(parts, axis=1), 0
        for i, v in those:
            found[i][v] = whole[:, start : start + len(cut[i][v])]
            start += len(cut[i][v])
    return found


@once
def make_windows(network: Network, mesh: Mesh, window: int):
    """Compiled `windows(trainable, stats, frozen, raw) -> logits (T, B, m, m, C)`."""

    def one(trainable, stats, frozen, x):
        return of_windows(merged(network, mesh, trainable, frozen, stats), x)

    def run(trainable, stats, frozen, raw):
        spread = parallel.over_batch(mesh)
        x = jax.lax.with_sharding_constraint(network.normalised(raw, window), spread)
        of_trials = jax.vmap(one, in_axes=(0, 0, None, None), spmd_axis_name="trial")
        return of_trials(trainable, stats, frozen, x)

    run = parallel.traced_on(mesh, run)
    return jax.jit(run, out_shardings=parallel.replicated(mesh))


def of_windows(model: Model, x: Float[Array, "B s s 3"]) -> Float[Array, "B m m C"]:
    """Logits of normalised windows of any size."""
    regrid(model, x.shape[1])
    return model(x).main


def regrid(model: Model, window: int) -> None:
    """Give a model the position embeddings of smaller or larger images."""
    backbone = model.backbone
    old, new = backbone.config.grid, window // backbone.config.patch
    if old == new:
        return
    rows, known = matrix(old, new), backbone.pos_embed[...]
    first, grid = known[:, : -(old**2)], known[0, -(old**2) :]
    grid = jnp.einsum("ai,bj,ijd->abd", rows, rows, grid.reshape(old, old, -1))
    grid = grid.reshape(1, new**2, -1).astype(known.dtype)
    backbone.pos_embed = nnx.Param(jnp.concatenate([first, grid], axis=1))


def labels(looked: Look, logits: Sequence[Float[Array, "T _ _ _ C"]]) -> Labels:
    """The class of each pixel of an image, tile by tile.

    Args:
        looked: How it was seen.
        logits: Of the windows of each view.
    """
    height, width = looked.extents
    pairs = zip(looked.views, logits, strict=True)
    matrices = [view.back(x.shape[2]) for view, x in pairs]
    found = np.empty((len(logits[0]), height, width), np.uint8)
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            rows, columns = slice(top, top + TILE), slice(left, left + TILE)
            here = sum(
                _probabilities(x, _tile(down[:, rows]), _tile(along[:, columns]))
                for (down, along), x in zip(matrices, logits, strict=True)
            )
            here = np.asarray(jnp.argmax(here, -1))
            found[:, rows, columns] = here[:, : height - top, : width - left]
    return found


def _tile(part: np.ndarray) -> np.ndarray:
    """The matrices of a tile at the edge, filled up."""
    return np.pad(part, [(0, 0), (0, TILE - part.shape[1]), (0, 0)])


@jax.jit
def _probabilities(logits, down, along):
    """Softmax over the classes of one view, (T, TILE, TILE, C)."""
    highest = jax.lax.Precision.HIGHEST

    def add(total, one):
        x, rows, columns = one
        x = jnp.einsum("yi,tijc->tyjc", rows, x, precision=highest)
        return total + jnp.einsum("xj,tyjc->tyxc", columns, x, precision=highest), None

    start = jnp.zeros((len(logits), TILE, TILE, logits.shape[-1]), logits.dtype)
    total, _ = jax.lax.scan(add, start, (logits.swapaxes(0, 1), down, along))
    return jax.nn.softmax(total)
