"""Files that are whole or not there, and lines that are added to one."""

import atexit
import contextlib
import json
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator

from vpt_jax.errors import UserError
from vpt_jax.storage.paths import Folder, is_remote, objects

FLUSH_SECONDS = 10.0  # between two writes of lines to a bucket


@contextlib.contextmanager
def whole(path: Folder) -> Iterator[pathlib.Path]:
    """A file on this machine to write; it appears at `path` when the block ends well.

    Its name ends as that of `path`; the folder of `path` is made.
    """
    if isinstance(path, pathlib.Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        yield temporary
        os.replace(temporary, path)
        return
    with tempfile.TemporaryDirectory() as folder:
        local = pathlib.Path(folder) / path.name
        yield local
        upload(local, path)


def upload(local: pathlib.Path, path: Folder) -> None:
    """Write an object; one that is being read stays as it was until all is there."""
    import fsspec  # see `paths.objects`

    system, name = fsspec.core.url_to_fs(os.fspath(path))
    system.put_file(os.fspath(local), name)


def write_bytes(path: Folder, content: bytes) -> None:
    """Write whole or not at all; makes the folder."""
    if is_remote(path):
        path.write_bytes(content)
        return
    with whole(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Folder, text: str) -> None:
    """Write whole or not at all; makes the folder."""
    write_bytes(path, text.encode())


def write_json(path: Folder, content: dict) -> None:
    """Write whole or not at all; makes the folder."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Folder) -> dict | None:
    """The content; None when there is no such file."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error


def read_lines(path: Folder) -> list[dict]:
    """The whole lines of a metrics.jsonl; one that a kill cut short is left out."""
    return list(_parse(path.read_text().splitlines()))


def _parse(lines: list[str]) -> Iterator[dict]:
    for line in lines:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def size_of(path: Folder) -> int:
    """Bytes."""
    found = path.stat()
    return found.st_size if isinstance(found, os.stat_result) else found.length


def make(folder: Folder) -> None:
    """Make a folder; in a bucket there are none."""
    if isinstance(folder, pathlib.Path):
        folder.mkdir(parents=True, exist_ok=True)


def remove(folder: Folder) -> None:
    """Remove a folder and all in it, if it is there."""
    if isinstance(folder, pathlib.Path):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in objects(folder):
        path.unlink(missing_ok=True)


class Lines:
    """A file of lines that grows: appended to, or in a bucket written anew.

    What was added is safe after `flush`.
    """

    def __init__(self, path: Folder, lines: list[str]):
        """Begin with these `lines`, whatever is there."""
        self._path, self._lines = path, lines  # those of a bucket grow
        self._write()

    def add(self, line: str) -> None:
        """One more."""
        if isinstance(self._path, pathlib.Path):
            with open(self._path, "a") as file:
                file.write(line + "\n")
            return
        self._lines.append(line)
        self._is_new = True
        if time.monotonic() - self._written > FLUSH_SECONDS:
            self._write()

    def flush(self) -> None:
        """Write what is not yet written."""
        if self._is_new:
            self._write()

    def _write(self) -> None:
        write_text(self._path, "".join(line + "\n" for line in self._lines))
        self._is_new, self._written = False, time.monotonic()


class Mirror:
    """A folder on this machine for a library that writes into one as it goes.

    Attributes:
        local: Where it writes: the folder itself, or one that is copied to the bucket.
    """

    def __init__(self, folder: Folder):
        self._folder, self._sent = folder, dict[str, int]()
        if isinstance(folder, pathlib.Path):
            self.local = folder
        else:
            self.local = pathlib.Path(tempfile.mkdtemp())
            atexit.register(remove, self.local)

    def flush(self) -> None:
        """Copy what has grown."""
        if isinstance(self._folder, pathlib.Path):
            return
        for path in sorted(p for p in self.local.rglob("*") if p.is_file()):
            name, size = path.relative_to(self.local).as_posix(), path.stat().st_size
            if self._sent.get(name) != size:
                upload(path, self._folder / name)
                self._sent[name] = size
