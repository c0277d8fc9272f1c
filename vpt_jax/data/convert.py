"""TFRecord files of TFDS into ArrayRecord files, without TensorFlow.

Both hold the same serialised records; ArrayRecord can be read by index. A TFRecord
file is a sequence of: length (uint64, little endian), its checksum (4 bytes), the
record, its checksum (4 bytes).
"""

import json
import os
import pathlib
import shutil
import struct
from collections.abc import Iterator

from vpt_jax.errors import UserError

_SUFFIXES = ".tfrecord-", ".array_record-"


def to_array_record(builder) -> None:
    """Converts a prepared data set in its own folder; the TFRecord files stay.

    Safe to interrupt: the metadata, written last and at once, is what makes readers
    look for the new files.

    Raises:
      UserError: other files than TFRecord, or not as many records as the metadata say.
    """
    folder = pathlib.Path(str(builder.data_path))
    kind = builder.info.file_format.value
    if kind != "tfrecord":
        raise UserError(f"{folder} holds {kind} files; only tfrecord can be converted")
    temporary = folder / "incomplete.array_record"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    for split in builder.info.splits.values():
        for path, length in zip(split.filepaths, split.shard_lengths, strict=True):
            source = pathlib.Path(str(path))
            _convert(source, temporary / source.name.replace(*_SUFFIXES), length)
    for path in temporary.iterdir():
        os.replace(path, folder / path.name)
    info = json.loads((folder / "dataset_info.json").read_text())
    others = [x for x in info.get("alternativeFileFormats", []) if x != "array_record"]
    info |= {
        "fileFormat": "array_record",
        "alternativeFileFormats": [*others, "tfrecord"],
    }
    (temporary / "dataset_info.json").write_text(json.dumps(info, indent=2))
    os.replace(temporary / "dataset_info.json", folder / "dataset_info.json")
    temporary.rmdir()


def _convert(source: pathlib.Path, target: pathlib.Path, length: int) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    if not source.exists():
        raise UserError(f"{source} is missing; copy or prepare the data set again")
    writer = ArrayRecordWriter(str(target), "group_size:1")  # as TFDS writes them
    count = 0
    for record in _records(source):
        writer.write(record)
        count += 1
    writer.close()
    if count != length:
        raise UserError(
            f"{source} holds {count} whole records, but its metadata say {length}; "
            f"copy or prepare the data set again"
        )


def _records(path: pathlib.Path) -> Iterator[bytes]:
    """Whole records; a last one that is cut off is left out."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        while len(header := file.read(12)) == 12:
            [length] = struct.unpack("<Q", header[:8])
            if length + 4 > size - file.tell():  # damaged, too: do not allocate that
                return
            record, _ = file.read(length), file.read(4)
            yield record
