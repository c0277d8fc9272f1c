"""The folder of a report: what a report wrote there is all that a report replaces.

files.json lists the files of the last report. They appear whole, those that are not
written again are removed, and nothing else in the folder is touched.
"""

import json
import os
import re
from collections.abc import Iterable

from vpt_jax.errors import UserError
from vpt_jax.storage import locks
from vpt_jax.storage.files import write_bytes, write_json
from vpt_jax.storage.paths import Folder, every, explained, is_remote

_MANIFEST, _LOCK = "files.json", ".lock"
_WRITER = "vpt_jax --mode report"
_FILE = re.compile(
    r"report\.(md|html)|tables/[^/]+\.(csv|tex)|figures/[^/]+\.png", re.DOTALL
)


def is_report(folder: Folder) -> bool:
    """Whether the folder holds a report that says so."""
    return _listed(folder) is not None


def owned(folder: Folder) -> set[str]:
    """The files there that a report wrote, relative to the folder.

    Raises:
        UserError: The folder holds something else than a report.
    """
    if not folder.exists():
        return set()
    listed = _listed(folder)
    if listed is not None:
        return listed
    # Without a manifest: of an earlier version, where no file is of another kind.
    found = _files(folder) if folder.is_dir() else {folder.name}
    foreign = sorted(name for name in found if not _FILE.fullmatch(name))
    if foreign:
        raise UserError(
            f"{folder} is where the report goes, but it holds {foreign[0]!r}, which no "
            "report wrote; rename that folder, or give another --workdir or --output"
        )
    return found


def replace(folder: Folder, files: dict[str, bytes]) -> None:
    """Write the files of a report, and remove those of the last one it has not.

    Several processes may do so at once: one after the other.

    Args:
        folder: Of the report.
        files: Content by name relative to the folder.

    Raises:
        UserError: The folder cannot be written, or a file is there that no report
            wrote.
    """
    with explained(folder), locks.held(folder / _LOCK, wait=True):
        _replace(folder, files)


def _replace(folder: Folder, files: dict[str, bytes]) -> None:
    before = owned(folder)
    for name in sorted(files.keys() - before):
        if (folder / name).exists() or os.path.lexists(folder / name):
            raise UserError(
                f"{folder / name} would be overwritten, but no report wrote it; move it"
            )
    _declare(folder, before | files.keys())  # first: a kill leaves nothing unlisted
    for name, content in files.items():
        write_bytes(folder / name, content)
    for name in before - files.keys():
        (folder / name).unlink(missing_ok=True)
    for part in (folder / "tables", folder / "figures"):
        if not is_remote(part) and part.is_dir() and not any(part.iterdir()):
            part.rmdir()
    _declare(folder, files.keys())


def _declare(folder: Folder, names: Iterable[str]) -> None:
    content = {"written_by": _WRITER, "files": sorted(names)}
    write_json(folder / _MANIFEST, content)


def _listed(folder: Folder) -> set[str] | None:
    """What the manifest lists; None without a manifest of a report.

    Raises:
        UserError: It lists what is no file of this folder.
    """
    try:
        content = json.loads((folder / _MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("written_by") != _WRITER:
        return None
    names = content.get("files", [])
    for name in names:
        if not (isinstance(name, str) and _FILE.fullmatch(name)):
            raise UserError(f"{folder / _MANIFEST} lists {name!r}, no file of a report")
    return set(names)


def _files(folder: Folder) -> set[str]:
    """All below it but directories, the lock and what a killed write left."""
    return {
        path.relative_to(folder).as_posix()
        for path in every(folder)
        if _LOCK not in (path.name, path.parent.name) and path.suffix != ".tmp"
    }
