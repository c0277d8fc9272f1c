"""A user's own photographs with masks.

    PATH/images/{train,val,test}/NAME.jpg        photographs
    PATH/annotations/{train,val,test}/NAME.png   masks, of the same names
    PATH/classes.txt                             optional: a name a line, from class 0

`training` and `validation` are other names of `train` and `val`. Without val/, a tenth
of train/ is set aside for it; without test/, val/ is for testing. Without classes.txt,
the training masks are read once for their largest number.
"""

import functools
import math
import os
import pathlib

import numpy as np

from vpt_jax.data.folder import shuffled
from vpt_jax.data.images import find_images, read_mask
from vpt_jax.data.masks import IGNORED, MaskFiles, Numbers
from vpt_jax.data.source import ahead
from vpt_jax.data.tasks import Task
from vpt_jax.errors import UserError
from vpt_jax.storage.cache import at_hand

PREFIX = "masks:"
NAMES = {
    "train": ("train", "training"),
    "val": ("val", "validation"),
    "test": ("test",),
}


def make_task(path: str, ignored: tuple[int, ...] = ()) -> Task:
    """The task of a folder.

    Args:
        path: The folder.
        ignored: Numbers of pixels without a class; 255 always is one.

    Raises:
        UserError: Not such a folder, or a number that no mask can have.
    """
    root = at_hand(os.path.expanduser(path))
    for kind in ("images", "annotations"):
        if not (root / kind).is_dir():
            raise UserError(
                f"{root / kind} is not a folder; masks:PATH needs PATH/images/train, "
                "PATH/annotations/train and the same of val and test"
            )
    if not all(isinstance(n, int) and 0 <= n <= 255 for n in ignored):
        raise UserError(f"data.ignored {ignored} must be numbers from 0 to 255")
    names = class_names(root, ignored)
    numbers = Numbers(tuple(range(len(names))), ignored)
    return Task(
        name=PREFIX + path,
        group="masks",
        kind="segmentation",
        num_classes=len(names),
        part=lambda part, data_dir: split(root, part, numbers),
        class_names=lambda data_dir: names,
    )


@functools.cache
def class_names(root: pathlib.Path, ignored: tuple[int, ...]) -> tuple[str, ...]:
    """Those of classes.txt, or as many numbers as the training masks use."""
    file = root / "classes.txt"
    if file.is_file():
        names = tuple(filter(None, map(str.strip, file.read_text().splitlines())))
    else:
        masks = _pairs(root, "train").values()
        paths = [mask for _, mask in masks]
        found = ahead(lambda i: np.unique(read_mask(paths[i])), 0, len(paths))
        used = {int(n) for some in found for n in some} - {IGNORED, *ignored}
        names = tuple(map(str, range(1 + max(used, default=0))))
    if not 2 <= len(names) < IGNORED:
        raise UserError(f"{root} has {len(names)} classes; it needs 2 to {IGNORED - 1}")
    return names


def split(root: pathlib.Path, part: str, numbers: Numbers) -> MaskFiles:
    """The pairs of 'train', 'val' or 'test'; nothing is decoded."""
    has = {
        name: any(map(lambda n: (root / "images" / n).is_dir(), known))
        for name, known in NAMES.items()
    }
    if part == "test" and not has["test"] and has["val"]:
        pairs = _pairs(root, "val")
    elif part == "test" or (part == "val" and has["val"] and has["test"]):
        pairs = _pairs(root, part)
    else:
        pairs = _pairs(root, "train")
        if not (has["val"] and has["test"]):  # a tenth of train/ validates
            order = shuffled([image for image, _ in pairs.values()], root)
            held = set(order[: math.ceil(len(order) / 10)])
            wanted = part == "val"
            pairs = {n: p for n, p in pairs.items() if (p[0] in held) == wanted}
    if not pairs:
        raise UserError(f"{root}: no image is left for {part}; it needs more of them")
    images, masks = zip(*pairs.values(), strict=True)
    return MaskFiles(images, masks, numbers, tuple(pairs))


def _pairs(
    root: pathlib.Path, part: str
) -> dict[str, tuple[pathlib.Path, pathlib.Path]]:
    """Image and mask by their name, sorted.

    Raises:
        UserError: One has no other.
    """
    found = []
    for kind in ("images", "annotations"):
        folders = [root / kind / name for name in NAMES[part]]
        folder = next((f for f in folders if f.is_dir()), None)
        if folder is None:
            raise UserError(f"{folders[0]} is not a folder")
        paths, _ = find_images(folder)
        named = {p.relative_to(folder).with_suffix("").as_posix(): p for p in paths}
        if len(named) < len(paths):
            raise UserError(f"{folder} has two files of one name with other endings")
        if not paths:
            raise UserError(f"{folder} holds no image")
        found.append(named)
    images, masks = found
    if odd := sorted(images.keys() ^ masks.keys()):
        path = images.get(odd[0]) or masks[odd[0]]
        other = "mask" if odd[0] in images else "image"
        raise UserError(f"{path} has no {other} of the same name; add it or remove it")
    return {name: (images[name], masks[name]) for name in sorted(images)}
