"""The tasks of a bank that differ in the values of their tensors only.

Each task is one row of a table on the devices: all of its tuned tensors, one behind the
other. A batch gathers a row for each of its images, and one program runs them all

    rows (B, n), frozen, images (B, h, w, 3)  ->  what the head gives, (B, ...)

in which the frozen products stay one product for the whole batch. The table is no
argument of that program, so that it grows without a compilation of the network. Where
the rows of a batch would take more memory than `GATHERED` (full tuning: a backbone
each) a batch is of one task.
"""

import collections
import functools
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
from vpt_jax.training import programs
from vpt_jax.training.step import merged
from vpt_jax.types import Tree

FIRST = 8  # rows of a new table; it doubles when they are taken
GATHERED = 512e6  # bytes of a batch's rows


class Shelf:
    """A table of tuned tensors, and the programs that run them.

    Attributes:
        network: The tasks' common one, of as many classes as the widest may have.
        mixes: Whether the images of a batch may be of different tasks.
    """

    def __init__(self, network: Network, mesh: Mesh, max_batch: int):
        self.network = network
        self._mesh = mesh
        self._frozen = programs.place_frozen(network, mesh)
        _, trainable, _, stats = network.parts
        self._like = trainable, stats
        self._size = sum(math.prod(x.shape) for x in jax.tree.leaves(self._like))
        self.mixes = 4 * self._size * max_batch <= GATHERED
        self.batches = _powers(mesh.size, max_batch)
        self._lock = threading.Lock()  # of the table: a write takes the old one's place
        self._table = self._zeros(FIRST)
        self._free = collections.deque(range(FIRST))
        self._compiled: dict[int, jax.stages.Compiled] = {}
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
            images: At most as many as a batch has, resized.
        """
        size = self._fitting(len(images))
        fill = size - len(images)
        images = np.pad(images, [(0, fill)] + [(0, 0)] * 3, mode="edge")
        wanted = np.array(slots + slots[-1:] * fill if self.mixes else slots[:1])
        with self._lock:
            rows = self._take[len(wanted)](self._table, wanted.astype(np.int32))
        return self._program(size)(rows, self._frozen, images)

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
        """Compile for every size of a batch, so that none has to wait later."""
        for size in self.batches:
            self._program(size)

    @property
    def row_bytes(self) -> int:
        """What a task takes on each device."""
        return 4 * self._size

    def _program(self, size: int) -> jax.stages.Compiled:
        if size not in self._compiled:
            network = self.network
            side, where = network.image_size, parallel.over_batch(self._mesh)
            kind = np.float32 if network.preset.resize == "legacy" else np.uint8
            raw = jax.ShapeDtypeStruct((size, side, side, 3), kind)
            rows = (size if self.mixes else 1, self._size)
            rows = jax.ShapeDtypeStruct(
                rows, np.float32, sharding=parallel.replicated(self._mesh)
            )

            def outputs(rows, frozen, raw):
                x = jax.lax.with_sharding_constraint(network.normalised(raw), where)
                if not self.mixes:
                    return self._model(rows[0], frozen)(x)
                rows = jax.lax.with_sharding_constraint(rows, where)
                one = jax.vmap(self._one, in_axes=(0, None, 0))
                return one(rows, frozen, x)

            program = jax.jit(
                parallel.traced_on(self._mesh, outputs),
                out_shardings=parallel.replicated(self._mesh),
            )
            self._compiled[size] = program.lower(rows, self._frozen, raw).compile()
        return self._compiled[size]

    def _one(self, row, frozen, image):
        return self._model(row, frozen)(image[None])[0]

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
