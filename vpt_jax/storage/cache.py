"""Copies on this machine of what lies in a bucket, for libraries that read files.

Kept in the user's cache directory (`VPT_JAX_CACHE` names another). The name of a copy
is made of what the bucket says of each object, so what changed there is copied again.
It appears whole or not at all.
"""

import hashlib
import os
import pathlib
import shutil
import tempfile

import pooch

from vpt_jax.progress import Transfer
from vpt_jax.storage.paths import explained, is_remote, located


def cache_dir() -> pathlib.Path:
    """Where downloads are kept."""
    chosen = os.environ.get("VPT_JAX_CACHE")
    return pathlib.Path(chosen or pooch.os_cache("vpt_jax")).expanduser()


def at_hand(place: str | os.PathLike) -> pathlib.Path:
    """A local path with what lies there, a file or a folder; itself where it is local.

    Raises:
        UserError: Nothing there, or it cannot be read.
    """
    path = located(place)
    if not is_remote(path):
        return pathlib.Path(path)
    with explained(path):
        return _copied(path)


def _copied(path) -> pathlib.Path:
    import fsspec  # see `paths.objects`

    system, root = fsspec.core.url_to_fs(os.fspath(path))
    found = system.find(root, detail=True)
    if not found:
        raise FileNotFoundError(path)
    keys = ("etag", "generation", "size", "LastModified")
    state = [(name, [str(about.get(k)) for k in keys]) for name, about in found.items()]
    digest = hashlib.sha256(repr(sorted(state)).encode()).hexdigest()[:16]
    target = cache_dir() / "buckets" / f"{digest}-{path.name}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    whole = pathlib.Path(tempfile.mkdtemp(dir=target.parent, prefix=".copying-"))
    try:
        size = sum(about["size"] for about in found.values())
        with Transfer(f"{path} to this machine", size) as bar:
            for name, about in found.items():
                inside = name[len(root) :].strip("/")
                local = whole / "content" / inside if inside else whole / "content"
                local.parent.mkdir(parents=True, exist_ok=True)
                system.get_file(name, os.fspath(local))
                bar.add(about["size"])
        try:
            (whole / "content").rename(target)
        except OSError:
            if not target.exists():  # else another process was quicker
                raise
    finally:
        shutil.rmtree(whole, ignore_errors=True)
    return target
