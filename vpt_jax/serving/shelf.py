"""The tasks of a bank that differ in the values of their tensors only.

Each task is one row of a table on the devices: all of its tuned tensors, one behind the
other. A batch gathers a row for each of its images, and one program runs them all

    rows (B, n), frozen, images (B, h, w, 3)  ->  what the head gives, (B, ...)

where an image is a window of one if each pixel gets a class (`training.pixels`), and
in which the frozen products stay one product for the whole batch. The table is no
argument of that program, so that it grows without a compilation of the network. Where
the rows of a batch would take more memory than `GATHERED` (full tuning: a backbone
each) a batch is of one task.
"""

import collections
import functools
import itertools
import math
import threading
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int32

from vpt_jax import parallel
from vpt_jax.model import Model
from vpt_jax.network import Network
from vpt_jax.training import pixels, programs
from vpt_jax.training.step import merged
from vpt_jax.types import Tree

FIRST = 8  # rows of a new table; it doubles when they are taken
GATHERED = 512e6  # bytes of a batch's rows


class Shelf:
    """A table of tuned tensors, and the programs that run them.

    Attributes:
        network: The tasks' common one, of as many classes as the widest may have.
        mixes: Whether the images of a batch may be of different tasks.
        batches: How many images run at once.
        sides: Of the images that it takes [px].
    """

    def __init__(self, network: Network, mesh: Mesh, max_batch: int):
        self.network = network
        self._mesh = mesh
        self._frozen = programs.place_frozen(network, mesh)
        _, trainable, _, stats = network.parts
        self._like = trainable, stats
        self._size = sum(math.prod(x.shape) for x in jax.tree.leaves(self._like))
        self.batches, self.sides = _powers(mesh.size, max_batch), (network.image_size,)
        if network.objective.DENSE:
            self.batches = _powers(mesh.size, min(max_batch, pixels.BATCH))
            self.sides = pixels.sides(network)
        self.mixes = 4 * self._size * self.batches[-1] <= GATHERED
        self._lock = threading.Lock()  # of the table: a write takes the old one's place
        self._table = self._zeros(FIRST)
        self._free = collections.deque(range(FIRST))
        self._compiled: dict[tuple[int, int], jax.stages.Compiled] = {}
        self._applied: dict[Callable, Callable] = {}
        self._prepare_table()

    def row(self, trainable: Tree, stats: Tree) -> Float32[np.ndarray, " n"]:
        """A task's tensors as a row; those of fewer classes end in zeros."""
        leaves = jax.tree.leaves((trainable, stats))
        wanted = jax.tree.leaves(self._like)
        return np.concatenate(
            [
                _filled(np.asarray(x, np.float32), like.shape).ravel()
                for x, like in zip(leaves, wanted, strict=True)
            ]
        )

    def put(self, row: Float32[np.ndarray, " n"]) -> int:
        """Keep a row; returns its number."""
        with self._lock:
            if not self._free:
                count = len(self._table)
                self._free.extend(range(count, 2 * count))
                self._table = jnp.concatenate([self._table, self._zeros(count)])
                self._prepare_table()
            slot = self._free.popleft()
            self._table = self._write(self._table, row, np.int32(slot))
        return slot

    def free(self, slot: int) -> None:
        """Give a row back; no batch may name it any more.

        Takes no lock: Python may call it in the middle of `put`, when it tidies up.
        """
        self._free.append(slot)

    def run(self, slots: list[int], images: Float[np.ndarray, "b h w 3"]) -> Array:
        """Start a batch; gives what the head gives, of which the first b rows count.

        Args:
            slots: Of each image; equal ones where the shelf does not mix.
            images: At most as many as a batch has, of one of the `sides`.
        """
        size, side = self._fitting(len(images)), images.shape[1]
        fill = size - len(images)
        images = np.pad(images, [(0, fill)] + [(0, 0)] * 3, mode="edge")
        wanted = np.array(slots + slots[-1:] * fill if self.mixes else slots[:1])
        with self._lock:
            rows = self._take[len(wanted)](self._table, wanted.astype(np.int32))
        return self._program(size, side)(rows, self._frozen, images)

    def apply(self, function: Callable, slot: int, images: Array):
        """`function(model, images)` of one task's network, compiled once."""
        if function not in self._applied:

            def run(row, frozen, images):
                return function(self._model(row, frozen), images)

            self._applied[function] = jax.jit(run)
        with self._lock:
            row = self._table[slot]
        return self._applied[function](row, self._frozen, images)

    def _fitting(self, count: int) -> int:
        """The smallest batch for so many images."""
        return next(size for size in self.batches if size >= count)

    def compile(self) -> None:
        """Compile for every batch of images, so that none has to wait later."""
        for size, side in itertools.product(self.batches, self.sides):
            self._program(size, side)

    @property
    def row_bytes(self) -> int:
        """What a task takes on each device."""
        return 4 * self._size

    def _program(self, size: int, side: int) -> jax.stages.Compiled:
        if (size, side) not in self._compiled:
            network, where = self.network, parallel.over_batch(self._mesh)
            pillow = network.preset.resize != "legacy" and not network.objective.DENSE
            kind = np.uint8 if pillow else np.float32  # as `Task.view` gives them
            raw = jax.ShapeDtypeStruct((size, side, side, 3), kind)
            rows = (size if self.mixes else 1, self._size)
            rows = jax.ShapeDtypeStruct(
                rows, np.float32, sharding=parallel.replicated(self._mesh)
            )

            def outputs(rows, frozen, raw):
                x = network.normalised(raw, side)
                x = jax.lax.with_sharding_constraint(x, where)
                if not self.mixes:
                    return self._outputs(rows[0], frozen, x)
                rows = jax.lax.with_sharding_constraint(rows, where)
                one = jax.vmap(self._one, in_axes=(0, None, 0))
                return one(rows, frozen, x)

            program = jax.jit(
                parallel.traced_on(self._mesh, outputs),
                out_shardings=parallel.replicated(self._mesh),
            )
            program = program.lower(rows, self._frozen, raw)
            self._compiled[size, side] = program.compile()
        return self._compiled[size, side]

    def _one(self, row, frozen, image):
        return self._outputs(row, frozen, image[None])[0]

    def _outputs(self, row, frozen, images):
        model = self._model(row, frozen)
        dense = self.network.objective.DENSE
        return pixels.of_windows(model, images) if dense else model(images)

    def _model(self, row: Float[Array, " n"], frozen: Tree) -> Model:
        leaves, start = [], 0
        for like in jax.tree.leaves(self._like):
            stop = start + math.prod(like.shape)
            leaves.append(row[start:stop].reshape(like.shape))
            start = stop
        structure = jax.tree.structure(self._like)
        trainable, stats = jax.tree.unflatten(structure, leaves)
        return merged(self.network, self._mesh, trainable, frozen, stats)

    def _zeros(self, count: int) -> Array:
        where = parallel.replicated(self._mesh)
        return jnp.zeros((count, self._size), jnp.float32, device=where)

    def _prepare_table(self) -> None:
        """Compile what reads and writes the table as long as it is now."""
        where = parallel.replicated(self._mesh)
        index = functools.partial(jax.ShapeDtypeStruct, dtype=np.int32)
        row = jax.ShapeDtypeStruct((self._size,), np.float32)
        take = jax.jit(_take, out_shardings=where)
        write = jax.jit(_write, donate_argnums=0, out_shardings=where)
        counts = self.batches if self.mixes else (1,)
        self._take = {n: take.lower(self._table, index((n,))).compile() for n in counts}
        self._write = write.lower(self._table, row, index(())).compile()


def _take(table: Float[Array, "m n"], slots: Int32[Array, " b"]) -> Float[Array, "b n"]:
    return table[slots]


def _write(table: Float[Array, "m n"], row: Float[Array, " n"], slot):
    return table.at[slot].set(row)


def _powers(least: int, most: int) -> tuple[int, ...]:
    """Powers of two from `least` that the devices share evenly."""
    sizes = [least]
    while sizes[-1] < most:
        sizes.append(2 * sizes[-1])
    return tuple(sizes)


def _filled(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Zeros behind the values of each axis."""
    return np.pad(
        x, [(0, long - short) for short, long in zip(x.shape, shape, strict=True)]
    )
