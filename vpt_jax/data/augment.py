"""Random crops and flips: the same on the device, on the host and for any chunks.

Three numbers in [0, 1), drawn from (seed, epoch, image), decide for each image how far
down and to the right the square is cut, and whether it is mirrored. Images of several
sizes lie end to end in one array (`Ragged`), nothing is padded; squares are cut from it
inside the compiled step.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32, UInt8

from vpt_jax.data.examples import Image

MAX_PIXELS = 2**31 - 1  # of a `Ragged`: they are counted in int32


class Ragged(NamedTuple):
    """Images of several sizes, row by row."""

    pixels: UInt8[Array | np.ndarray, "pixels 3"]
    starts: Int32[Array | np.ndarray, " n"]  # first pixel of each image
    extents: Int32[Array | np.ndarray, "n 2"]  # height and width


def pack(images: Sequence[Image]) -> Ragged:
    """Images as one array."""
    extents = np.array([image.shape[:2] for image in images], np.int32)
    ends = np.cumsum(extents.prod(1, dtype=np.int64))
    pixels = np.concatenate([image.reshape(-1, 3) for image in images])
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int32)
    return Ragged(pixels, starts, extents)


def draw(
    seed, epoch, index: Int[Array, " B"], count: int = 3
) -> Float32[Array, "B {count}"]:
    """The numbers in [0, 1) of each image; traceable."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 3), epoch)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
    return jax.vmap(lambda k: jax.random.uniform(k, (count,), jnp.float32))(keys)


def cut_device(
    images: Ragged,
    index: Int[Array, " B"],
    drawn: Float[Array, "B 3"],
    size: int,
) -> UInt8[Array, "B {size} {size} 3"]:
    """Squares of the images `index`; traceable."""
    extents = images.extents[index]
    # A number below 1 times a small whole number stays below it in float32, too.
    corners = jnp.floor(drawn[:, :2] * (extents - size + 1)).astype(jnp.int32)
    width = extents[:, 1:]
    first = images.starts[index][:, None] + corners[:, :1] * width + corners[:, 1:]
    rows = first + jnp.arange(size)[None] * width

    def row(start):
        return jax.lax.dynamic_slice(images.pixels, (start, 0), (size, 3))

    squares = jax.vmap(jax.vmap(row))(rows)
    flip = (drawn[:, 2] < 0.5)[:, None, None, None]
    return jnp.where(flip, squares[:, :, ::-1], squares)


def cut_host(
    image: UInt8[np.ndarray, "h w 3"], drawn: Float32[np.ndarray, "3"], size: int
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """The square that `cut_device` cuts."""
    room = np.array(image.shape[:2], np.float32) - (size - 1)
    top, left = np.floor(drawn[:2] * room).astype(int)
    square = image[top : top + size, left : left + size]
    return square[:, ::-1] if drawn[2] < 0.5 else square
