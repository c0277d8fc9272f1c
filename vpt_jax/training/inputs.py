"""What the training step reads: raw images, or the frozen first pieces' output.

What comes before the first trained tensor gives the same output in every epoch, so it
is run once over the training images and kept

    on the devices     if it fits there: batches are gathered inside the compiled step
    on the host        if it does not: batches are gathered here, step by step
    not at all         if it fits nowhere: every step runs the whole network

Images that the whole network reads are kept on the devices where they fit, as they are
or resized; else they are read again in every epoch, ahead of the step that needs them.

Which of these it is depends on the memory that is free. It is decided once for a run
(`decide`), recorded, and obeyed when the run is continued.
"""

import collections
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax.sharding import Mesh
from jaxtyping import Array

from vpt_jax import parallel
from vpt_jax.data import augment, preprocess, scenes
from vpt_jax.data.examples import Examples, Image
from vpt_jax.data.source import Source, ahead
from vpt_jax.network import Network
from vpt_jax.progress import say
from vpt_jax.training import programs
from vpt_jax.training.optim import Hyper
from vpt_jax.training.setup import Setup
from vpt_jax.training.step import epoch_order
from vpt_jax.types import Tree

BATCH = 100  # images; a fixed size, so that scores do not depend on the device
SAMPLE = 16  # images from which the size of all is estimated
IN_FLIGHT = 2  # computations that are started before the result of one is waited for
T = TypeVar("T")

CACHED, CACHED_ON_HOST = "outputs on the device", "outputs on the host"
RESIDENT, STREAMED = "images on the device", "images streamed"
PLACES = (CACHED, CACHED_ON_HOST, RESIDENT, STREAMED)
"""Of what is read: outputs of the frozen first pieces, or the images themselves."""


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
    feed: ClassVar[programs.Feed] = "all"

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
    feed: ClassVar[programs.Feed] = "own"

    def at(self, done: int) -> jax.Array:
        """The batch (T, B, ...) of the step after `done` steps."""
        epoch, position = divmod(done, self.setup.steps_per_epoch)
        start = position * self.setup.batch_size
        orders = [epoch_order(self.setup, seed, epoch) for seed in self.hyper.seed]
        rows = np.stack(orders)[:, start : start + self.setup.batch_size]
        return parallel.place(self.array[rows], parallel.over_both(self.mesh))


class Stream:
    """Training images that are read and decoded anew in every epoch.

    All trials see the batches of the first one's seed: batches of their own would have
    to be read and decoded T times. Trials whose images are on the devices do have their
    own, so several trials learn otherwise here than there; a single one does not. Which
    images a step reads, and how they are cropped, follows from the seed and the step
    alone: a run continues in the middle of an epoch, also with another number of
    processes. Each process reads the rows of the batch that its devices hold.
    """

    max_steps = 1
    feed: ClassVar[programs.Feed] = "shared"

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
        self._network = setup.network
        self._first, self._count = rows.start, rows.stop - rows.start
        self._place = place
        self._next = -1  # the step whose batch comes next from `_images`
        self._images: Iterator[np.ndarray] = iter(())
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
        order = epoch_order(self._setup, self._seed, epoch)
        if not self._network.varies:
            return np.asarray(order), None
        numbers = scenes.NUMBERS if self._network.objective.DENSE else 3
        drawn = augment.draw(self._seed, epoch, order, numbers)
        return np.asarray(order), np.asarray(drawn)

    def _image(self, number: int) -> np.ndarray:
        """The one that comes after `number` others of this process."""
        done, row = divmod(number, self._count)
        epoch, batch = divmod(done, self._setup.steps_per_epoch)
        order, drawn = self._epoch(epoch)
        position = batch * self._setup.batch_size + self._first + row
        [image] = self._source.read([int(order[position])])
        preset, size = self._network.preset, self._network.image_size
        if drawn is None:
            return preprocess.view(preset, image, size)
        if self._network.objective.DENSE:
            return scenes.crop(image, drawn[position], size, preset.mean)
        resized = preprocess.resize_for(preset, image, size)
        return augment.cut_host(resized, drawn[position], size)


def decide(setup: Setup, limits: Limits, source: Source) -> str:
    """One of `PLACES`, by the memory there is; says so where it is not the first.

    Images with a target for each pixel are scaled by chance, which the host does.
    """
    if setup.network.objective.DENSE:
        return STREAMED
    if setup.cut:
        size = cache_bytes(setup)
        if size <= limits.device_bytes():
            return CACHED
        line = f"{size / 1e6:,.1f} MB of outputs of the frozen blocks do not fit "
        if size <= limits.host_bytes():
            say(line + "on the device: kept on the host, sent batch by batch")
            return CACHED_ON_HOST
        say(line + "in memory: the frozen blocks run again in every step")
    preset = setup.network.preset
    size, pixels = image_bytes(setup.network, source)
    crowded = preset.augment and pixels > augment.MAX_PIXELS
    if size <= limits.image_bytes() and not crowded:
        return RESIDENT
    say(
        f"{len(source):,} training images, about {size / 1e6:,.1f} MB, do not fit in "
        "memory: streamed, read again in every epoch, in one order for all trials"
    )
    return STREAMED


def placed(setup: Setup, place: str) -> Setup:
    """`setup`, without its cache where images are read."""
    cached = place in (CACHED, CACHED_ON_HOST)
    if cached == setup.cached:
        return setup  # with the programs that were made for it
    return dataclasses.replace(setup, cached=cached)


def image_bytes(network: Network, source: Source) -> tuple[float, float]:
    """(bytes, pixels) of all training images as `load` keeps them, from a few."""
    images = _sample(source)
    if not _goes_as_it_is(network, source):
        resize = functools.partial(preprocess.resize_for, network.preset)
        images = [resize(image, network.image_size) for image in images]
    each = len(source) / len(images)
    total = sum(image.nbytes for image in images)
    return each * total, each * sum(image[..., 0].size for image in images)


def cache_bytes(setup: Setup) -> int:
    """Of the activations of all training images."""
    one = cached_shape(setup, 1)
    return setup.num_examples * math.prod(one.shape) * one.dtype.itemsize


def cached_shape(setup: Setup, count: int) -> jax.ShapeDtypeStruct:
    """Of the activations of so many images."""
    network, size = setup.network, setup.network.image_size
    raw = jax.ShapeDtypeStruct((BATCH, size, size, 3), jnp.uint8)  # traced once
    mesh = parallel.make_mesh(1, jax.device_count())
    prefix = programs.make_prefix(network, setup.cut, mesh)
    batch = jax.eval_shape(prefix, network.parts[2], raw)
    return jax.ShapeDtypeStruct((count, *batch.shape[1:]), batch.dtype)


def streamed_shape(setup: Setup) -> jax.ShapeDtypeStruct:
    """Of a batch of images that are read for it; targets of pixels are a channel."""
    size = setup.network.image_size
    channels = 4 if setup.network.objective.DENSE else 3
    shape = setup.batch_size, size, size, channels
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def feed(
    setup: Setup, place: str, mesh: Mesh, hyper: Hyper, frozen: Tree, source: Source
) -> Resident | Spilled | Stream:
    """What the steps are fed, put in place; runs the frozen first pieces if cached."""
    network, where = setup.network, parallel.replicated(mesh)
    if place in (CACHED, CACHED_ON_HOST):
        prefix = programs.make_prefix(network, setup.cut, mesh)
        started = (
            (size, prefix(frozen, raw)) for _, size, raw in batches(network, source)
        )
        array = np.concatenate([np.asarray(x)[:size] for size, x in behind(started)])
        if place == CACHED_ON_HOST:
            return Spilled(array, setup, mesh, parallel.fetch(hyper))
        return Resident(parallel.place(array, where))
    if place == STREAMED:
        put = functools.partial(
            jax.make_array_from_process_local_data, parallel.over_batch(mesh)
        )
        rows = parallel.own_rows(mesh, setup.batch_size)
        return Stream(source, setup, int(parallel.fetch(hyper.seed)[0]), rows, put)
    return Resident(parallel.place(load(network, source), where))


def feed_of(place: str) -> programs.Feed:
    """What kind of feed a place makes."""
    if place == CACHED_ON_HOST:
        return "own"
    return "shared" if place == STREAMED else "all"


def load(network: Network, source: Source) -> np.ndarray | augment.Ragged:
    """All training images: as they are, resized, or to be cropped in each step."""
    preset, size = network.preset, network.image_size
    if preset.augment:
        resize = functools.partial(preprocess.resize_for, preset, size=size)
        return augment.pack(list(_read(source, resize)))
    if not _goes_as_it_is(network, source):
        view = functools.partial(preprocess.view, preset, size=size)
        return np.stack(list(_read(source, view)))
    if isinstance(source, Examples) and isinstance(source.images, np.ndarray):
        return source.images
    images = list(_read(source))
    if len({image.shape for image in images}) > 1:
        images = [preprocess.resize_host(image, size) for image in images]
    return np.stack(images)


def batches(
    network: Network, source: Source, batch: int = BATCH
) -> Iterator[tuple[int, int, np.ndarray]]:
    """(first index, rows that count, raw images) with the last batch filled up.

    Images of one size stay as they are where the device resizes them; others are
    resized, and cropped in the centre, on the host.
    """
    preset, size = network.preset, network.image_size
    as_it_is = _goes_as_it_is(network, source)
    view = None if as_it_is else functools.partial(preprocess.view, preset, size=size)
    images, shape = _read(source, view), None
    for start in range(0, len(source), batch):
        group = list(itertools.islice(images, batch))
        shape = shape or group[0].shape
        if any(image.shape != shape for image in group):
            group = [preprocess.resize_host(image, size) for image in group]
        fill = [(0, batch - len(group))] + [(0, 0)] * 3
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


def normalised(network: Network, source: Source) -> Iterator[tuple[Array, np.ndarray]]:
    """(images as the backbone takes them, targets of those that count)."""
    for start, size, raw in batches(network, source):
        yield network.normalised(jnp.asarray(raw)), source.labels[start : start + size]


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


def _goes_as_it_is(network: Network, source: Source) -> bool:
    """Whether the device resizes: by the legacy rule, images that seem of one size."""
    if network.preset.resize != "legacy":
        return False
    return len({image.shape for image in _sample(source)}) == 1
