"""The folder or file that a user named, local or in a bucket.

A local one is a `pathlib.Path`, one in a bucket an `epath.Path`; their common methods
are all that the other rooms use.
"""

import contextlib
import importlib.util
import os
import pathlib
from collections.abc import Iterator

os.environ.setdefault("EPATH_USE_TF", "0")  # read when epath is imported

from etils import epath  # noqa: E402

from vpt_jax.errors import UserError  # noqa: E402

Remote = epath.Path
Folder = pathlib.Path | Remote

DRIVERS = {"gs": "gcsfs", "s3": "s3fs"}
EXTRAS = {"gs": "gcs", "s3": "s3"}
CREDENTIALS = {
    "gs": "run 'gcloud auth application-default login'",
    "s3": "run 'aws configure'",
}


def scheme(name: str | os.PathLike) -> str:
    """'gs' of gs://bucket/path; '' of what lies in a file system."""
    before, mark, _ = os.fspath(name).partition("://")
    return before if mark else ""


def is_remote(path: Folder) -> bool:
    """Whether it lies in a bucket."""
    return not isinstance(path, pathlib.Path)


def workdir(name: str | os.PathLike) -> Folder:
    """The folder that a user named to be written.

    Raises:
        UserError: It is neither of a file system nor of Google Cloud Storage.
    """
    kind, colon, rest = os.fspath(name).partition(":")
    named = bool(colon) and rest.startswith("/") and len(kind) > 1 and "/" not in kind
    if named and (kind != "gs" or scheme(name) != "gs"):
        raise UserError(
            f"--workdir {name}: give a folder of a file system, or gs://bucket/path "
            "(checkpoints cannot be written elsewhere)"
        )
    return located(name)


def located(name: str | os.PathLike) -> Folder:
    """A folder or file that a user named to be read, of any kind that is known.

    Raises:
        UserError: Of no known kind, or without the package that reads it.
    """
    kind, text = scheme(name), os.fspath(name)
    if not kind:
        return pathlib.Path(text)
    if kind not in DRIVERS:
        known = ", ".join(f"{known}://" for known in DRIVERS)
        raise UserError(f"{text}: unknown kind of address; known are paths and {known}")
    if not can_read(kind):
        missing = f"{text} needs {DRIVERS[kind]}"
        raise UserError(f"{missing}: pip install 'vpt_jax[{EXTRAS[kind]}]'")
    if not text.partition("://")[2].strip("/"):
        raise UserError(f"{text} names no bucket: give {kind}://bucket/path")
    return epath.Path(text)


def absolute(name: str) -> str:
    """A folder that a user named, as it is called from anywhere."""
    return name if scheme(name) else str(pathlib.Path(name).expanduser().absolute())


def can_read(kind: str) -> bool:
    """Whether the package for gs or s3 is installed."""
    return importlib.util.find_spec(DRIVERS[kind]) is not None


def every(folder: Folder) -> list[Folder]:
    """All files below a folder, in order."""
    if not isinstance(folder, pathlib.Path):
        return objects(folder)
    return sorted(p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir())


def objects(folder: Remote) -> list[Folder]:
    """All objects of a bucket below a folder, in order."""
    import fsspec  # with the drivers, a second that local folders need not wait for

    kind = scheme(folder)
    system = fsspec.filesystem(kind)
    found = system.find(os.fspath(folder))
    return [epath.Path(f"{kind}://{name}") for name in sorted(found)]


@contextlib.contextmanager
def explained(path: Folder) -> Iterator[None]:
    """One line that names `path` instead of what storage raises in the block.

    Raises:
        UserError: Not there, not allowed, or no answer.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not (isinstance(error, OSError) or is_remote(path)):
            raise
        reason = _reason(path, error)
        raise UserError(f"{path} cannot be used: {reason}") from error


def _reason(path: Folder, error: Exception) -> str:
    """What went wrong, and what to do."""
    text, kind = " ".join(str(error).split()), type(error).__name__
    if not is_remote(path):
        return text
    bucket = os.fspath(path).partition("://")[2].partition("/")[0]
    code = getattr(error, "code", None)
    if isinstance(error, FileNotFoundError):
        with contextlib.suppress(Exception):
            if epath.Path(f"{scheme(path)}://{bucket}").exists():
                return "there is nothing of that name"
        return f"there is no bucket {bucket}; make it, or mend the name"
    if (
        kind in ("DefaultCredentialsError", "NoCredentialsError")
        or code == 401
        or "Anonymous caller" in text
    ):
        return f"no credentials; {CREDENTIALS[scheme(path)]}"
    if isinstance(error, PermissionError) or code == 403 or "Forbidden" in text:
        return f"bucket {bucket} does not allow it ({text.split('Forbidden: ')[-1]})"
    return text or kind
