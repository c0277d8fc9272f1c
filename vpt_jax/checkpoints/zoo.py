"""The pre-trained backbones by name, and whether a file is the one that a row names."""

import hashlib
import os
import pathlib
import sys

from vpt_jax.checkpoints.fetch import HUB, kept_as, sha256_of
from vpt_jax.checkpoints.rows import ENTRIES, Entry
from vpt_jax.errors import UserError

ZOO: dict[str, Entry] = {entry.name: entry for entry in ENTRIES}


def lookup(name: str) -> Entry:
    """The entry of a named backbone.

    Raises:
        UserError: there is none; the message lists the names.
    """
    if name not in ZOO:
        known = ", ".join(ZOO)
        raise UserError(f"no pre-trained file is known for {name!r}; known: {known}")
    return ZOO[name]


def describe(entry: Entry) -> str:
    """What the entry says of the backbone, in one line."""
    mean, std = (" ".join(f"{x:g}" for x in v) for v in (entry.mean, entry.std))
    row = f"; row {entry.paper_row} of the VPT paper" if entry.paper_row else ""
    unverified = f"; unverified: {entry.unverified}" if entry.unverified else ""
    return (
        f"{entry.num_params:,} parameters, {entry.licence}, pre-trained at "
        f"{entry.image_size} px, {entry.resize}, mean {mean}, std {std}"
        f"{row}{unverified}"
    )


def is_remote(entry: Entry) -> bool:
    """Whether its file is no part of the package."""
    return "://" in entry.url


def address(entry: Entry) -> str:
    """Where its file is fetched from.

    Raises:
        UserError: in a repository of the Hub of which no revision is recorded. What is
            there today another upload may replace tomorrow, under the same name.
    """
    if not entry.url.startswith("hf://") or "@" in entry.url:
        return entry.url
    repository = entry.url.removeprefix("hf://")
    raise UserError(
        f"the file of {entry.name} is unverified: no revision of {entry.url} is "
        f"recorded, and what is there may change; choose a commit at "
        f"{HUB}/{repository}/commits/main and give "
        f"config.backbone.checkpoint={entry.url}@COMMIT"
    )


def instead(entry: Entry) -> str:
    """A file with the same weights that needs no torch, in words."""
    if entry.safetensors is None:
        return ""
    at = "" if "@" in entry.safetensors else "@COMMIT"
    where = f"config.backbone.checkpoint={entry.safetensors}{at}"
    return f"; the same weights are there as safetensors: {where}"


def stated(entry: Entry) -> str:
    """What is known of its file's hash, '' where nothing is."""
    if entry.sha256:
        return f"sha256 {entry.sha256}"
    if entry.sha256_prefix:
        return f"sha256 {entry.sha256_prefix}..."
    return f"md5 {entry.md5_prefix}..." if entry.md5_prefix else ""


def identify(path: pathlib.Path, sha256: str) -> Entry | None:
    """The entry that a file lying somewhere is of: by its hash, by the name under which
    downloads are kept, or by its own name (on the Hub that of its repository)."""
    remote = [entry for entry in ZOO.values() if is_remote(entry)]
    by_hash = [entry for entry in remote if entry.sha256 == sha256]
    by_name = [
        entry
        for entry in remote
        if kept_as(entry.url).name == path.name or _is_named_after(entry, path)
    ]
    return next(iter([*by_hash, *by_name]), None)


def _is_named_after(entry: Entry, path: pathlib.Path) -> bool:
    scheme, _, place = entry.url.partition("://")
    if scheme != "hf":
        return place.rpartition("/")[2] == path.name
    repository = place.split("@")[0].split("/")[1]
    return repository in path.parts


def verify(entry: Entry, path: str | os.PathLike) -> str:
    """Checks a file against what its entry states and returns its SHA-256.

    Six digits of an MD5 are no protection against a forged file, but they tell a
    file that was damaged or mixed up. Where nothing is stated, it says so.

    Raises:
        UserError: the file is not the one that the entry describes.
    """
    sha256 = sha256_of(path)
    if entry.sha256 and entry.sha256 != sha256:
        raise _not_the_file(entry, path, f"sha256 {sha256}, not {entry.sha256}")
    if entry.sha256_prefix and not sha256.startswith(entry.sha256_prefix):
        raise _not_the_file(
            entry, path, f"sha256 {sha256}, not {entry.sha256_prefix}..."
        )
    if entry.md5_prefix:
        with open(path, "rb") as file:
            md5 = hashlib.file_digest(file, _md5).hexdigest()
        if not md5.startswith(entry.md5_prefix):
            raise _not_the_file(entry, path, f"md5 {md5}, not {entry.md5_prefix}...")
    if is_remote(entry) and not stated(entry):
        print(
            f"no hash is known for the file of {entry.name}; the one used here has "
            f"sha256 {sha256}",
            file=sys.stderr,
        )
    return sha256


def _md5():
    # Without the flag MD5 is refused on machines in FIPS mode.
    return hashlib.md5(usedforsecurity=False)


def _not_the_file(entry: Entry, path: str | os.PathLike, found: str) -> UserError:
    return UserError(
        f"{os.fspath(path)!r} is not the published file of {entry.name} (it has"
        f" {found}); delete it and fetch {entry.url} again"
    )
