"""What the training step reads: raw images, or the frozen first steps' output.

What comes before the first trained tensor gives the same output in every epoch, so it
is run once over the training images and kept

    on the devices     if it fits there: batches are gathered inside the compiled step
    on the host        if it does not: batches are gathered here, step by step
    not at all         if it fits nowhere: every step runs the whole network

Images that the whole network reads are kept on the devices where they fit, as they are
or resized; else they are read again in every epoch, ahead of the step that needs them.
"""

import collections
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax.sharding import Mesh

from vpt_jax import parallel
from vpt_jax.data import augment, preprocess
from vpt_jax.data.examples import Examples, Image
from vpt_jax.data.source import Source, ahead
from vpt_jax.progress import say
from vpt_jax.training import step
from vpt_jax.training.optim import Hyper
from vpt_jax.training.step import Setup

BATCH = 100  # images; a fixed size, so that scores do not depend on the device
SAMPLE = 16  # images from which the size of all is estimated
IN_FLIGHT = 2  # computations that are started before the result of one is waited for
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bytes that cached activations and images may take; None: half of what is free."""

    device: float | None = None
    host: float | None = None
    images: float | None = None

    def device_bytes(self) -> float:
        """On one device, which holds all of the cache."""
        if self.device is not None:
            return self.device
        stats = jax.local_devices()[0].memory_stats()
        if stats and "bytes_limit" in stats:
            return _half(stats["bytes_limit"] - stats["bytes_in_use"])
        return _half(psutil.virtual_memory().available)

    def host_bytes(self) -> float:
        """In the host's memory."""
        if self.host is not None:
            return self.host
        return _half(psutil.virtual_memory().available)

    def image_bytes(self) -> float:
        """On one device, and on the host before they get there."""
        if self.images is not None:
            return self.images
        free = Limits()
        return min(free.device_bytes(), free.host_bytes())


def _half(free: float) -> float:
    """Of the process that has the least free: all put things in the same places."""
    [most_negative] = parallel.agree(-free)
    return -most_negative / 2


@dataclasses.dataclass(frozen=True)
class Resident:
    """Inputs of all training images on the devices."""

    array: jax.Array | augment.Ragged
    max_steps = math.inf  # of one call of the program
    reads = "all"

    def at(self, done: int) -> jax.Array | augment.Ragged:
        """What the chunk after `done` steps reads."""
        return self.array


@dataclasses.dataclass(frozen=True)
class Spilled:
    """Inputs of all training images on the host."""

    array: np.ndarray
    setup: Setup
    mesh: Mesh
    hyper: Hyper
    max_steps = 1
    reads = "own"

    def at(self, done: int) -> jax.Array:
        """The batch (T, B, ...) of the step after `done` steps."""
        epoch, position = divmod(done, self.setup.steps_per_epoch)
        start = position * self.setup.batch_size
        orders = [step.epoch_order(self.setup, seed, epoch) for seed in self.hyper.seed]
        rows = np.stack(orders)[:, start : start + self.setup.batch_size]
        return parallel.place(self.array[rows], parallel.over_both(self.mesh))


class Stream:
    """Training images that are read and decoded anew in every epoch.

    All trials see the batches of the first one's seed. Which images a step reads, and
    how they are cropped, follows from the seed and the step alone: a run continues in
    the middle of an epoch, also with another number of processes. Each process reads
    the rows of the batch that its devices hold.
    """

    max_steps = 1
    reads = "shared"

    def __init__(
        self,
        source: Source,
        setup: Setup,
        seed: int,
        rows: slice,
        place: Callable[[np.ndarray], jax.Array],
    ):
        """`place` makes a batch on all devices from this process's `rows` of it."""
        self._source, self._setup, self._seed = source, setup, seed
        self._first, self._count = rows.start, rows.stop - rows.start
        self._place = place
        self._next, self._images = None, None
        self._epoch = functools.lru_cache(2)(self._plan)

    def at(self, done: int) -> jax.Array:
        """The batch (B, ...) of the step after `done` steps."""
        if done != self._next:
            stop = self._setup.num_steps * self._count
            self._images = ahead(self._image, done * self._count, stop)
        self._next = done + 1
        images = list(itertools.islice(self._images, self._count))
        return self._place(np.stack(images))

    def _plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The images of an epoch in their order, and what is drawn for each."""
        order = step.epoch_order(self._setup, self._seed, epoch)
        if not self._setup.preset.augment:
            return np.asarray(order), None
        return np.asarray(order), np.asarray(augment.draw(self._seed, epoch, order))

    def _image(self, number: int) -> Image:
        """The one that comes after `number` others of this process."""
        done, row = divmod(number, self._count)
        epoch, batch = divmod(done, self._setup.steps_per_epoch)
        order, drawn = self._epoch(epoch)
        position = batch * self._setup.batch_size + self._first + row
        [image] = self._source.read([order[position]])
        preset, size = self._setup.preset, self._setup.image_size
        if drawn is None:
            return preprocess.view(preset, image, size)
        resized = preprocess.resize_for(preset, image, size)
        return augment.cut_host(resized, drawn[position], size)


def fit(setup: Setup, limits: Limits, source: Source) -> tuple[Setup, type]:
    """(`setup`, or without its cache; where the inputs go), by the memory there is."""
    if setup.cut:
        size = cache_bytes(setup)
        if size <= limits.device_bytes():
            return setup, Resident
        line = f"{size / 1e6:,.1f} MB of outputs of the frozen blocks do not fit "
        if size <= limits.host_bytes():
            say(line + "on the device: kept on the host, sent batch by batch")
            return setup, Spilled
        say(line + "in memory: the frozen blocks run again in every step")
        setup = dataclasses.replace(setup, cached=False)
    size, pixels = image_bytes(setup, source)
    crowded = setup.preset.augment and pixels > augment.MAX_PIXELS
    if size <= limits.image_bytes() and not crowded:
        return setup, Resident
    say(
        f"{len(source):,} training images, about {size / 1e6:,.1f} MB, do not fit in "
        "memory: streamed, read again in every epoch"
    )
    return setup, Stream


def image_bytes(setup: Setup, source: Source) -> tuple[float, float]:
    """(bytes, pixels) of all training images as `load` keeps them, from a few."""
    images = _sample(source)
    if not _goes_as_it_is(setup, source):
        resize = functools.partial(preprocess.resize_for, setup.preset)
        images = [resize(image, setup.image_size) for image in images]
    each = len(source) / len(images)
    total = sum(image.nbytes for image in images)
    return each * total, each * sum(image[..., 0].size for image in images)


def cache_bytes(setup: Setup) -> int:
    """Of the activations of all training images."""
    size = setup.image_size
    raw = jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)
    prefix = step.make_prefix(setup, parallel.make_mesh(1, jax.device_count()))
    out = jax.eval_shape(prefix, setup.parts[2], raw)
    return setup.num_examples * sum(
        x.dtype.itemsize * math.prod(x.shape) for x in jax.tree.leaves(out)
    )


def prepare(
    setup: Setup, kind: type, mesh: Mesh, hyper: Hyper, frozen, source: Source
) -> Resident | Spilled | Stream:
    """Run the frozen first steps if they are cached, and put the inputs in place."""
    where = parallel.replicated(mesh)
    if setup.cut:
        prefix = step.make_prefix(setup, mesh)
        started = (
            (size, prefix(frozen, raw)) for _, size, raw in batches(setup, source)
        )
        array = np.concatenate([np.asarray(x)[:size] for size, x in behind(started)])
        if kind is Spilled:
            return Spilled(array, setup, mesh, parallel.fetch(hyper))
        return Resident(parallel.place(array, where))
    if kind is Stream:
        place = functools.partial(
            jax.make_array_from_process_local_data, parallel.over_batch(mesh)
        )
        rows = parallel.own_rows(mesh, setup.batch_size)
        return Stream(source, setup, parallel.fetch(hyper.seed)[0], rows, place)
    return Resident(parallel.place(load(setup, source), where))


def load(setup: Setup, source: Source) -> np.ndarray | augment.Ragged:
    """All training images: as they are, resized, or to be cropped in each step."""
    preset, size = setup.preset, setup.image_size
    if preset.augment:
        resize = functools.partial(preprocess.resize_for, preset, size=size)
        return augment.pack(list(_read(source, resize)))
    if not _goes_as_it_is(setup, source):
        view = functools.partial(preprocess.view, preset, size=size)
        return np.stack(list(_read(source, view)))
    if isinstance(source, Examples) and source.uniform_size:
        return source.images
    images = list(_read(source))
    if len({image.shape for image in images}) > 1:
        images = [preprocess.resize_host(image, size) for image in images]
    return np.stack(images)


def batches(setup: Setup, source: Source) -> Iterator[tuple[int, int, np.ndarray]]:
    """(first index, rows that count, raw images) with the last batch filled up.

    Images of one size stay as they are where the device resizes them; others are
    resized, and cropped in the centre, on the host.
    """
    preset, size = setup.preset, setup.image_size
    as_it_is = _goes_as_it_is(setup, source)
    view = None if as_it_is else functools.partial(preprocess.view, preset, size=size)
    images, shape = _read(source, view), None
    for start in range(0, len(source), BATCH):
        group = list(itertools.islice(images, BATCH))
        shape = shape or group[0].shape
        if any(image.shape != shape for image in group):
            group = [preprocess.resize_host(image, size) for image in group]
        fill = [(0, BATCH - len(group))] + [(0, 0)] * 3
        yield start, len(group), np.pad(np.stack(group), fill, mode="edge")


def behind(started: Iterable[T]) -> Iterator[T]:
    """What computations give, in their order, each after `IN_FLIGHT` more are started.

    JAX starts them and goes on: while the devices compute, the host prepares what the
    next ones read. No more are started, as each holds its inputs on the devices.
    """
    waiting = collections.deque()
    for result in started:
        waiting.append(result)
        if len(waiting) > IN_FLIGHT:
            yield waiting.popleft()
    yield from waiting


def normalised(setup: Setup, source: Source) -> Iterator[tuple]:
    """(images as the backbone takes them, labels of those that count), for a method."""
    for start, size, raw in batches(setup, source):
        labels = source.labels[start : start + size]
        yield step.prepare(setup, jnp.asarray(raw)), labels


def _read(source: Source, change: Callable[[Image], np.ndarray] | None = None):
    """All images in their order, each decoded and changed in a thread."""

    def one(index: int):
        [image] = source.read([index])
        return image if change is None else change(image)

    if isinstance(source, Examples) and change is None:
        return iter(source.images)
    return ahead(one, 0, len(source))


def _sample(source: Source) -> list[Image]:
    """A few images from all over a source."""
    count = min(SAMPLE, len(source))
    return source.read(np.linspace(0, len(source) - 1, count).astype(int))


def _goes_as_it_is(setup: Setup, source: Source) -> bool:
    """Whether the device resizes: by the legacy rule, images that seem of one size."""
    if setup.preset.resize != "legacy":
        return False
    return len({image.shape for image in _sample(source)}) == 1
