"""The pre-trained backbones that have a name, and where their files are.

The ViT files are those of the original release (google-research/vision_transformer,
Apache-2.0) in the public bucket `gs://vit_models`: `imagenet21k/` belongs to "An
Image is Worth 16x16 Words" (arXiv 2010.11929) and is what the VPT paper tunes;
`augreg/` belongs to "How to train your ViT?" (arXiv 2106.10270) and fills the sizes
that the first release lacks, with the file that its authors list for each
(`howto-i21k-*` in google-research/big_vision).
"""

import dataclasses
import hashlib
import importlib.resources
import os

from vpt_jax.checkpoints.fetch import sha256_of
from vpt_jax.errors import UserError

HALF = (0.5, 0.5, 0.5)
BUCKET = "gs://vit_models"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A pre-trained file and what has to be known to use it."""

    name: str  # of the backbone whose default checkpoint this is
    architecture: str  # key of the table of backbones
    url: str  # what `fetch` takes: an address, or a path for an embedded file
    sha256: str | None  # None: the publisher states none
    size_bytes: int | None
    licence: str  # SPDX identifier
    num_params: int  # backbone without head, at `image_size`
    # Preprocessing of the pre-training, on images in [0, 1]. The VPT paper's runs
    # replace mean and std by ImageNet's.
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: str  # "bilinear": straight to the square, aspect ratio not kept
    image_size: int  # side in pixels
    paper_row: str | None  # the backbone's row in the VPT paper, None if it has none
    md5_prefix: str | None = None  # all that the VPT repository's README gives


def _vit(
    name: str,
    file: str,
    num_params: int,
    paper_row: str | None = None,
    md5_prefix: str | None = None,
) -> Entry:
    """A file of the original ViT release, trained on inputs in [-1, 1] at 224."""
    return Entry(
        name=name,
        architecture=name,
        url=f"{BUCKET}/{file}",
        sha256=None,
        size_bytes=None,
        licence="Apache-2.0",
        num_params=num_params,
        mean=HALF,
        std=HALF,
        resize="bilinear",
        image_size=224,
        paper_row=paper_row,
        md5_prefix=md5_prefix,
    )


_ENTRIES = (
    Entry(
        name="vit_nano",
        architecture="vit_nano",
        url=str(importlib.resources.files("vpt_jax") / "assets" / "vit_nano.npz"),
        sha256=None,  # part of the package: nothing to compare it with
        size_bytes=None,
        licence="Apache-2.0",
        num_params=691_488,
        mean=HALF,
        std=HALF,
        resize="bilinear",
        image_size=32,
        paper_row=None,
    ),
    _vit(
        "vit_ti16",
        "augreg/Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0.npz",
        5_524_416,
    ),
    _vit(
        "vit_s16",
        "augreg/S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0.npz",
        21_665_664,
    ),
    # timm's B/8 is another run of the same release, aug_medium1.
    _vit(
        "vit_b8",
        "augreg/B_8-i21k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.0-sd_0.0.npz",
        85_807_872,
    ),
    _vit(
        "vit_b16",
        "imagenet21k/ViT-B_16.npz",
        85_798_656,
        paper_row="ViT-B/16 sup IN-21k",
        md5_prefix="d9715d",
    ),
    _vit("vit_b32", "imagenet21k/ViT-B_32.npz", 87_455_232),
    _vit(
        "vit_l16",
        "imagenet21k/ViT-L_16.npz",
        303_301_632,
        paper_row="ViT-L/16 sup IN-21k",
    ),
    _vit("vit_l32", "imagenet21k/ViT-L_32.npz", 305_510_400),
    _vit(
        "vit_h14",
        "imagenet21k/ViT-H_14.npz",
        630_764_800,
        paper_row="ViT-H/14 sup IN-21k",
    ),
)

ZOO: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}


def lookup(name: str) -> Entry:
    """The entry of a named backbone.

    Raises:
        UserError: there is none; the message lists the names.
    """
    if name not in ZOO:
        known = ", ".join(ZOO)
        raise UserError(f"no pre-trained file is known for {name!r}; known: {known}")
    return ZOO[name]


def verify(entry: Entry, path: str | os.PathLike) -> str:
    """Checks a file against what its entry states and returns its SHA-256.

    Six digits of an MD5 are no protection against a forged file, but they tell a
    file that was damaged or mixed up.

    Raises:
        UserError: the file is not the one that the entry describes.
    """
    sha256 = sha256_of(path)
    if entry.sha256 and entry.sha256 != sha256:
        raise _not_the_file(entry, path, f"sha256 {sha256}, not {entry.sha256}")
    if entry.md5_prefix:
        with open(path, "rb") as file:
            md5 = hashlib.file_digest(file, _md5).hexdigest()
        if not md5.startswith(entry.md5_prefix):
            raise _not_the_file(entry, path, f"md5 {md5}, not {entry.md5_prefix}...")
    return sha256


def _md5():
    # Without the flag MD5 is refused on machines in FIPS mode.
    return hashlib.md5(usedforsecurity=False)


def _not_the_file(entry: Entry, path: str | os.PathLike, found: str) -> UserError:
    return UserError(
        f"{os.fspath(path)!r} is not the published file of {entry.name} (it has"
        f" {found}); delete it and fetch {entry.url} again"
    )
