"""Many tuned tasks on one frozen backbone: a batch mixes them image by image.

Tasks that differ in nothing but the values of their tensors share a `Shelf` and run as
one program; tasks of other methods, options, prompt lengths, image sizes or presets
have a shelf of their own, and a call runs one batch of each after the other. Numbers of
classes are rounded up to powers of two, of which a task sees its own. Tasks that give
an image one class and such that give each pixel one may be there at once.
"""

import dataclasses
import os
import threading
import weakref
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vpt_jax import checkpoints, export, parallel, resolution
from vpt_jax import precision as precisions
from vpt_jax.checkpoints import Pretrained
from vpt_jax.data.examples import Image
from vpt_jax.errors import UserError
from vpt_jax.experiment import NetworkChoice
from vpt_jax.network import Network
from vpt_jax.objectives import OBJECTIVES
from vpt_jax.serving.classifier import MAX_BATCH
from vpt_jax.serving.load import find
from vpt_jax.serving.shelf import Shelf
from vpt_jax.serving.tasks import Task, View, groups, run
from vpt_jax.storage.paths import Folder
from vpt_jax.types import count, flatten, path_name

FEWEST_CLASSES = 16  # that a head is made for


class Bank:
    """A frozen backbone in memory once, and the tuned tensors of many tasks.

    `load`, `unload` and `predict` may be called from several threads. Loading a task of
    a signature that is known compiles nothing.

    Args:
        backbone: Its name, such as 'vit_b16'.
        checkpoint: A path or address; None: the zoo's file.
        precision: 'float32' or 'bfloat16'; None: the best that the devices have.
        max_batch: The most images at once, a power of two.

    Raises:
        UserError: No such backbone, or it cannot be loaded.
    """

    def __init__(
        self,
        backbone: str,
        checkpoint: str | None = None,
        *,
        precision: str | None = None,
        max_batch: int = MAX_BATCH,
    ):
        if max_batch < 1 or max_batch & (max_batch - 1):
            raise UserError(f"max_batch {max_batch} must be a power of two")
        self.backbone, self.checkpoint = backbone, checkpoint
        self.precision = precision or precisions.best()
        precisions.check(self.precision)
        self.max_batch = max_batch
        self._mesh = parallel.make_mesh(1, max_batch)
        self._lock = threading.Lock()
        self._tasks: dict[str, Task] = {}
        self._shelves: dict[NetworkChoice, Shelf] = {}
        self._exact: dict[NetworkChoice, Network] = {}
        self._loaded: dict[tuple[int, bool], Pretrained] = {}

    @property
    def tasks(self) -> Mapping[str, Task]:
        """What is loaded, by name."""
        return dict(self._tasks)

    def weights(self) -> list[jax.Array]:
        """Of the backbone, each array once."""
        every = [known.params for known in list(self._loaded.values())]
        return list({id(x): x for x in jax.tree.leaves(every)}.values())

    def load(self, name: str, path: str | os.PathLike, seed: int | None = None) -> Task:
        """Take in a tuned task; one of the same name is replaced as a whole.

        Args:
            name: What it will be called.
            path: Of a run, a sweep or an export, as for `vpt_jax.load`.
            seed: Of a run with several.

        Raises:
            UserError: No export, of another backbone, or with tensors that are not
                finite; the bank is as it was.
        """
        task = self.read(name, path, seed)
        self.add(task)
        return task

    def add(self, task: Task) -> None:
        """Let a task that was `read` be asked for."""
        self._tasks[task.name] = task

    def read(self, name: str, path: str | os.PathLike, seed: int | None = None) -> Task:
        """Put a task on its shelf without letting it be asked for: see `load`."""
        folder, manifest = find(path, seed)
        if manifest["backbone"] != self.backbone:
            raise UserError(
                f"{folder} was tuned on a {manifest['backbone']}, not on the "
                f"{self.backbone} of this bank; open another bank for it"
            )
        objective = OBJECTIVES[manifest["objective"]]
        classes = tuple(manifest["classes"])
        choice = resolution.restore_network(
            manifest["config"],
            len(classes),
            objective,
            self.checkpoint,
            self.precision,
        )
        # Where it is, and how a run divided it, makes no difference here.
        plain = dataclasses.replace(
            choice.backbone, checkpoint=None, remat=False, shard=False
        )
        head = objective.SERVED.get(choice.head, choice.head)
        choice = dataclasses.replace(choice, backbone=plain, head=head)
        with self._lock:
            network = self._network(choice)
            if network.pretrained.sha256 != manifest["checkpoint_sha256"]:
                raise UserError(
                    f"{folder} was tuned on a {self.backbone} with sha256 "
                    f"{manifest['checkpoint_sha256']}, but this bank's, "
                    f"{network.pretrained.source}, has {network.pretrained.sha256}; "
                    "open another bank for it"
                )
            trees = export.read_tensors(folder, network, manifest)
            _check_finite(folder, trees)
            shelf = self._shelf(choice)
            slot = shelf.put(shelf.row(*trees))
            size = count(trees[0])
            task = Task(name, classes, manifest, folder, size, shelf, slot)
            weakref.finalize(task, shelf.free, slot)
        return task

    def unload(self, name: str) -> None:
        """Let a task go; its room is free when the calls that use it have ended."""
        self.task(name)
        self._tasks.pop(name, None)

    def task(self, name: str) -> Task:
        """The task of that name.

        Raises:
            UserError: None of those that are loaded.
        """
        found = self._tasks.get(name)
        if found is None:
            known = ", ".join(sorted(self._tasks)) or "none"
            raise UserError(f"no task {name!r} is loaded; there are: {known}")
        return found

    def predict(
        self, images: Sequence[Image], tasks: Sequence[str]
    ) -> list[np.ndarray]:
        """What each image is to its own task.

        Args:
            images: n of them, RGB of any sizes; the same object may occur often.
            tasks: n names.

        Returns:
            Class probabilities (C,); of a task that gives each pixel a class those, 0
            to C - 1, (h, w), as `Segmenter.predict`.
        """
        if len(images) != len(tasks):
            raise UserError(f"{len(images)} images for {len(tasks)} names of tasks")
        named = [self.task(name) for name in tasks]
        found: list = [None] * len(images)
        for numbers in groups(named):
            views: dict[tuple, View] = {}
            asked = []
            for n in numbers:
                key = id(images[n]), *named[n].sees
                if key not in views:
                    views[key] = named[n].view(images[n])
                asked.append((named[n], views[key]))
            for n, one in zip(numbers, self.run(asked), strict=True):
                found[n] = one
        return found

    def run(self, asked: Sequence[tuple[Task, View]]) -> list[np.ndarray]:
        """What `predict` gives, for pairs of a task and what its `view` gave."""
        return run(asked)

    def compile(self) -> None:
        """Compile all that the loaded tasks can ask for, so that no call has to."""
        with self._lock:
            shelves = list(self._shelves.values())
        for shelf in shelves:
            shelf.compile()

    def _shelf(self, choice: NetworkChoice) -> Shelf:
        """That of a signature, made where it is the first of its kind."""
        wide = max(FEWEST_CLASSES, 1 << (choice.num_classes - 1).bit_length())
        choice = dataclasses.replace(choice, num_classes=wide)
        if choice not in self._shelves:
            network = self._network(choice)
            self._shelves[choice] = Shelf(network, self._mesh, self.max_batch)
        return self._shelves[choice]

    def _network(self, choice: NetworkChoice) -> Network:
        """The network of a choice, on the one backbone of the bank."""
        if choice not in self._exact:
            corners = not choice.objective.DENSE
            of = choice.backbone.image_size, corners
            if of not in self._loaded:
                self._loaded[of] = self._pretrained(*of)
            self._exact[choice] = choice.make(self._loaded[of])
        return self._exact[choice]

    def _pretrained(self, size: int, corners: bool) -> Pretrained:
        """The backbone for images of that size; what it shares with others is shared,
        which is all but position embeddings: see `ViTConfig.corners`."""
        dtype = jnp.dtype(self.precision)
        found = checkpoints.load(
            self.backbone,
            self.checkpoint,
            size,
            dtype=dtype,
            frozen_dtype=dtype,
            corners=corners,
        )
        params = parallel.place(found.params, parallel.replicated(self._mesh))
        for other in self._loaded.values():
            params = jax.tree.map(_shared, params, other.params)
        return dataclasses.replace(found, params=params)


def open_bank(
    folders: dict[str, Folder],
    checkpoint: str | None,
    seed: int | None = None,
    **options,
) -> Bank:
    """A bank of exports, which must be of one backbone.

    Args:
        folders: By the name that each task gets.
        checkpoint: Where the backbone is, if no longer where the runs found it.
        seed: Of runs with several.
        options: Of `Bank`.
    """
    bank = None
    for name, folder in folders.items():
        if bank is None:
            _, manifest = find(folder, seed)
            backbone = manifest["config"]["backbone"]
            own = checkpoint or checkpoints.trusted(
                backbone["name"], backbone["checkpoint"]
            )
            bank = Bank(backbone["name"], own, **options)
        bank.load(name, folder, seed)
    if bank is None:
        raise UserError("no export is named")
    return bank


def _shared(new: jax.Array, old: jax.Array) -> jax.Array:
    return old if new.shape == old.shape and bool((new == old).all()) else new


def _check_finite(folder: Folder, trees: tuple) -> None:
    """Raise UserError where a tensor is not finite."""
    for tree in trees:
        for path, leaf in flatten(tree).items():
            if not np.isfinite(leaf).all():
                raise UserError(
                    f"{folder / export.TENSORS}: {path_name(path)} is not finite; tune "
                    "it again with a lower learning rate"
                )
