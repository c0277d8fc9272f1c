"""A user's own images: folders of classes, or lists of files with labels.

Three layouts, told apart by what lies in the folder:

    lists      train800.txt, val200.txt, test.txt, each with lines 'path label', and
               the images: how VTAB-1k is handed around, usually below `images/`
    splits     {train,val,test}/<class>/*; without val/, a tenth of each class of train/
               is set aside for it
    classes    <class>/*; of each class 80 % are for training, 10 % for validation and
               10 % for testing

Splits made here depend on file names only: files are ordered by a hash of their path
within the folder, so the same files give the same split on every machine, and a new
file moves at most few others.
"""

import collections
import dataclasses
import functools
import hashlib
import math
import os
import pathlib

import numpy as np

from vpt_jax.data.images import (
    SUFFIXES,
    find_images,
    is_hidden,
    is_hidden_folder,
)
from vpt_jax.data.source import Files
from vpt_jax.data.tasks import Task
from vpt_jax.errors import UserError
from vpt_jax.progress import say
from vpt_jax.storage.cache import at_hand

PREFIX = "folder:"
PARTS = ("train", "val", "test")
LISTS = {"train": "train800.txt", "val": "val200.txt", "test": "test.txt"}
BOTH_LIST = "train800val200.txt"


def make_task(path: str) -> Task:
    """The task of a folder; looks at the names of splits and classes only."""
    root = at_hand(os.path.expanduser(path))
    if not root.is_dir():
        raise UserError(f"{root} is not a folder of images")
    if any((root / name).exists() for name in LISTS.values()):
        layout = _read_lists(root)
    else:
        layout = _find_classes(root)
        _tell_hidden(root)
    return Task(
        name=PREFIX + path,
        group="folder",
        num_classes=len(layout.classes),
        part=functools.partial(_part, layout),
        class_names=functools.partial(_class_names, layout.classes),
    )


@dataclasses.dataclass(frozen=True)
class Lists:
    """Paths, relative to `root`, with the label of each, by part."""

    root: pathlib.Path
    classes: tuple[str, ...]
    parts: dict[str, tuple[tuple[str, int], ...]]

    def files(self, part: str) -> Files:
        """The files that a list names; UserError for the first that is missing."""
        found, labels = [], []
        for name, label in self.parts[part]:
            path = self.root / name
            if not path.is_file():
                raise UserError(f"{self.root / LISTS[part]} names {name}: no such file")
            found.append(path)
            labels.append(label)
        return _files(self.root, found, labels)


@dataclasses.dataclass(frozen=True)
class Classes:
    """Folders of classes, for each part its own (`split`) or one for all."""

    root: pathlib.Path
    classes: tuple[str, ...]
    split: frozenset[str]

    def files(self, part: str) -> Files:
        """The image files of a part."""
        found, labels = [], []
        for label, name in enumerate(self.classes):
            for path in self._of_class(part, name):
                found.append(path)
                labels.append(label)
        if not found:
            raise UserError(f"{self.root / part} holds no image")
        return _files(self.root, found, labels)

    def _of_class(self, part: str, name: str) -> list[pathlib.Path]:
        if part in self.split and (part != "train" or "val" in self.split):
            return _images(self.root / part / name)
        if self.split:  # no val/: a tenth of train/
            folder = self.root / "train" / name
            paths = shuffled(_images(folder), self.root)
            _at_least(2, paths, folder, "a validation split is made")
            border = math.ceil(len(paths) / 10)
            return sorted(paths[:border] if part == "val" else paths[border:])
        folder = self.root / name
        paths = shuffled(_images(folder), self.root)
        _at_least(3, paths, folder, "a validation and a test split are made")
        tenth = math.ceil(len(paths) / 10)
        cuts = {
            "test": paths[:tenth],
            "val": paths[tenth : 2 * tenth],
            "train": paths[2 * tenth :],
        }
        return sorted(cuts[part])


def shuffled(paths: list[pathlib.Path], root: pathlib.Path) -> list[pathlib.Path]:
    """In the order of a hash of their names below `root`."""

    def digest(path: pathlib.Path) -> bytes:
        return hashlib.sha256(path.relative_to(root).as_posix().encode()).digest()

    return sorted(paths, key=digest)


def _part(layout: Lists | Classes, part: str, data_dir: str | None) -> Files:
    return layout.files(part)


def _class_names(classes: tuple[str, ...], data_dir: str | None) -> tuple[str, ...]:
    return classes


def _files(root: pathlib.Path, paths: list[pathlib.Path], labels: list[int]) -> Files:
    ids = tuple(path.relative_to(root).as_posix() for path in paths)
    return Files(tuple(paths), np.asarray(labels, np.int32), ids)


# ---- folders of classes


def _find_classes(root: pathlib.Path) -> Classes:
    names = _folders(root)
    if not names & set(PARTS):
        if len(names) < 2:
            raise UserError(
                f"{root} holds {len(names)} folders; expected train/ and test/, or one "
                f"folder per class, or the lists {', '.join(LISTS.values())}"
            )
        for name in sorted(names):
            _images(root / name)
        return Classes(root, tuple(sorted(names)), frozenset())
    missing = sorted({"train", "test"} - names)
    if missing:
        raise UserError(
            f"{root} has {', '.join(sorted(names))} but no {missing[0]}/; it needs "
            f"train/ and test/ (val/ may be missing), or class folders only"
        )
    if names - set(PARTS):
        raise UserError(
            f"{root} has {sorted(names - set(PARTS))[0]!r} beside train/ and test/; "
            f"expected train, val and test only"
        )
    classes = tuple(sorted(_folders(root / "train")))
    if len(classes) < 2:
        raise UserError(f"{root / 'train'} holds {len(classes)} class folders, not 2")
    for part in sorted(names):
        found = _folders(root / part)
        unknown = sorted(found - set(classes))
        if unknown or len(found) != len(classes):
            odd = (unknown or sorted(set(classes) - found))[0]
            raise UserError(
                f"{root / part} has {len(found)} classes and {root / 'train'} has "
                f"{len(classes)}; {odd!r} is in one of them only"
            )
        for name in sorted(found):
            _images(root / part / name)
    return Classes(root, classes, frozenset(names))


def _folders(path: pathlib.Path) -> set[str]:
    return {
        p.name for p in path.iterdir() if p.is_dir() and not is_hidden_folder(p.name)
    }


@functools.cache  # once for each folder, however often its task is made
def _tell_hidden(root: pathlib.Path) -> None:
    _, hidden = find_images(root)
    if hidden:
        say(f"{root}: skipped {hidden} hidden files and folders")


def _images(folder: pathlib.Path) -> list[pathlib.Path]:
    paths = sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() in SUFFIXES and not is_hidden(p.name)
    )
    if not paths:
        raise UserError(
            f"class folder {folder} holds no image; remove it or fill it (known "
            f"endings: {', '.join(sorted(SUFFIXES))})"
        )
    return paths


def _at_least(least: int, paths: list, folder: pathlib.Path, why: str) -> None:
    if len(paths) < least:
        raise UserError(
            f"class folder {folder} holds {len(paths)} images, but {why}, which needs "
            f"at least {least} of each class"
        )


# ---- lists


def _read_lists(root: pathlib.Path) -> Lists:
    missing = [name for name in LISTS.values() if not (root / name).is_file()]
    if missing:
        raise UserError(
            f"{root} has no {missing[0]}; it needs {', '.join(LISTS.values())}"
        )
    parts = {part: _read_list(root / name) for part, name in LISTS.items()}
    label_of = {}
    for part, lines in parts.items():
        for name, label in lines:
            if label_of.setdefault(name, label) != label:
                raise UserError(
                    f"{root / LISTS[part]} gives {name} the label {label}, another "
                    f"list {label_of[name]}"
                )
    trained = {name for part in ("train", "val") for name, _ in parts[part]}
    tested = sorted(trained & {name for name, _ in parts["test"]})
    if tested:
        raise UserError(f"{tested[0]} is in {LISTS['test']} and in a training list")
    if (root / BOTH_LIST).is_file():
        both = collections.Counter(_read_list(root / BOTH_LIST))
        if both != collections.Counter(parts["train"] + parts["val"]):
            raise UserError(
                f"{root / BOTH_LIST} disagrees with {LISTS['train']} and "
                f"{LISTS['val']}: it must hold their lines"
            )
    # Over all lists: the 800 training images need not show every class.
    num_classes = 1 + max(label for lines in parts.values() for _, label in lines)
    return Lists(root, tuple(map(str, range(num_classes))), parts)


def _read_list(path: pathlib.Path) -> tuple[tuple[str, int], ...]:
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.isdecimal():
            raise UserError(
                f"{path}, line {number}: {line.strip()!r} is not 'path label' with a "
                f"whole number from 0"
            )
        rows.append((name.strip(), int(label)))
    if not rows:
        raise UserError(f"{path} is empty")
    return tuple(rows)
