"""Downloads and prepares what tasks read; the one place that needs TensorFlow.

Each data set is prepared once. An interrupted preparation is not trusted: TFDS writes
beside the final folder and renames it at the end; finished downloads are kept.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil

from vpt_jax import data
from vpt_jax.data import convert, fgvc, reading
from vpt_jax.data.reading import TfdsSet
from vpt_jax.data.tasks import Task
from vpt_jax.errors import UserError

GB = 10**9
INCOMPLETE = "incomplete"  # beside the states of `reading`: files are missing
EXTRA = "pip install 'vpt_jax[prepare]'"


@dataclasses.dataclass(frozen=True)
class Status:
    """What a task needs and whether it is there.

    Attributes:
      task: its name.
      state: one of `reading`'s, or `INCOMPLETE`.
      gigabytes: on disk if it is there, else what it will take; None if unknown.
      where: the folder that was found or looked into.
      what_to_do: one line; empty if ready.
    """

    task: str
    state: str
    gigabytes: float | None
    where: str
    what_to_do: str

    @property
    def ready(self) -> bool:
        return self.state == reading.READY


def status(name: str, data_dir: str | None) -> Status:
    """Looks for a task's data; reads no image.

    Raises:
      UserError: an unknown task, or a folder that cannot be used.
    """
    task = data.get_task(name, data_dir)
    if name in fgvc.FGVC and (root := fgvc.find_json(name, data_dir)):
        return Status(name, reading.READY, _size(root), str(root), "")
    if task.folder is not None and (root := task.folder(data_dir)):
        return Status(name, reading.READY, _size(root), str(root), "")
    if task.tfds is None:
        if task.manual is None:
            return Status(name, reading.READY, None, "", "")
        where = reading.directory(data_dir)
        return Status(name, reading.MISSING, None, where, task.manual)
    state, builder = reading.find(task.tfds, data_dir)
    if builder is None or state == reading.MISSING:
        where = reading.directory(data_dir)
        needed = task.tfds.gigabytes or None
        return Status(name, state, needed, where, _how_to_get(task, data_dir))
    folder = pathlib.Path(str(builder.data_path))
    size = _size(folder)
    if state == reading.UNFINISHED:
        return Status(name, state, size, str(folder), _unfinished(folder))
    if missing := reading.missing_shards(builder):
        text = (
            f"{len(missing)} files are missing, the first {missing[0]}: copy them "
            f"again, or delete {folder} and run --mode prepare"
        )
        return Status(name, INCOMPLETE, size, str(folder), text)
    to_do = "" if state == reading.READY else "--mode prepare converts the files"
    return Status(name, state, size, str(folder), to_do)


def prepare(name: str, data_dir: str | None) -> str:
    """Makes a task's data ready, or does nothing if it is.

    Returns:
      What was done: 'ready', 'converted' or 'prepared'.

    Raises:
      UserError: it cannot be done, and why; nothing half-made is left behind.
    """
    found = status(name, data_dir)
    if found.ready:
        return "ready"
    tfds_set = data.get_task(name, data_dir).tfds
    if tfds_set is None or found.state in (INCOMPLETE, reading.UNFINISHED):
        raise UserError(f"task {name}: {found.what_to_do}")
    _, builder = reading.find(tfds_set, data_dir)
    if found.state == reading.CONVERT:
        _check_space(name, found.gigabytes, reading.directory(data_dir))
        convert.to_array_record(builder)
        return "converted"
    manual = _manual(data_dir)
    if tfds_set.must_exist and not (manual / tfds_set.must_exist).exists():
        raise UserError(f"task {name}: {_by_hand(tfds_set, data_dir)}")
    _check_space(name, _needed(tfds_set, builder, manual), reading.directory(data_dir))
    _generate(name, tfds_set, builder, manual)
    return "prepared"


def _generate(name: str, tfds_set: TfdsSet, builder, manual: pathlib.Path) -> None:
    try:
        import tensorflow as tf
    except ImportError as error:
        raise UserError(
            f"task {name}: preparing {tfds_set.name} needs TensorFlow; install it with "
            f"{EXTRA}, or prepare the data on another machine and copy "
            f"{builder.data_path}"
        ) from error
    import tensorflow_datasets as tfds

    for kind in ("GPU", "TPU"):  # TensorFlow takes all memory of devices it sees
        with contextlib.suppress(RuntimeError, ValueError):
            tf.config.set_visible_devices([], kind)
    try:
        builder.download_and_prepare(
            download_dir=str(manual.parent),
            download_config=tfds.download.DownloadConfig(
                manual_dir=str(manual), try_download_gcs=False
            ),
            file_format="array_record",
        )
    # hosts, archives and builders each fail in their own way
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        hint = (
            "" if tfds_set.by_hand is None else f"; {_instructions(tfds_set, manual)}"
        )
        raise UserError(
            f"task {name}: preparing {tfds_set.name} failed ({type(error).__name__}: "
            f"{reason}); the same command tries again and keeps downloads{hint}"
        ) from error


# ---- disk space


def _needed(tfds_set: TfdsSet, builder, manual: pathlib.Path) -> float:
    """Gigabytes at most: downloads, the same unpacked, and the prepared files."""
    downloads = 0
    for info in (builder.url_infos or {}).values():  # None: nothing is downloaded
        there = (manual / info.filename).exists()
        downloads += info.size * (1 if there else 2)
    return downloads / GB + (tfds_set.gigabytes or downloads / GB)


def _check_space(name: str, gigabytes: float | None, where: str) -> None:
    existing = pathlib.Path(where).absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free / GB
    if gigabytes and free < gigabytes:
        raise UserError(
            f"task {name}: up to {gigabytes:.1f} GB of disk are needed (downloads, "
            f"unpacked, prepared), but {existing} has {free:.1f} GB free; make room or "
            f"give another --config.data.dir"
        )


def _size(folder: pathlib.Path) -> float:
    """Gigabytes of the files below a folder."""
    entries = (
        os.path.join(path, name) for path, _, names in os.walk(folder) for name in names
    )
    return sum(os.path.getsize(entry) for entry in entries) / GB


# ---- what to tell


def _manual(data_dir: str | None) -> pathlib.Path:
    return pathlib.Path(reading.directory(data_dir)).absolute() / "downloads" / "manual"


def _instructions(tfds_set: TfdsSet, manual: pathlib.Path) -> str:
    return (tfds_set.by_hand or "").replace("{manual}", str(manual))


def _by_hand(tfds_set: TfdsSet, data_dir: str | None) -> str:
    text = _instructions(tfds_set, _manual(data_dir))
    return f"{tfds_set.name} must be fetched by hand: {text}; then run this again"


def _how_to_get(task: Task, data_dir: str | None) -> str:
    manual = _manual(data_dir)
    tfds_set = task.tfds
    assert tfds_set is not None
    must_exist = tfds_set.must_exist
    if must_exist and not (manual / must_exist).exists():
        first = _by_hand(tfds_set, data_dir)
    else:
        first = "--mode prepare downloads and prepares it (needs TensorFlow)"
    return first if task.manual is None else f"{first}; or {task.manual}"


def _unfinished(folder: pathlib.Path) -> str:
    return (
        f"{folder} holds no finished data set (an interrupted copy); delete it, then "
        f"run --mode prepare"
    )
