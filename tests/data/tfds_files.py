"""Writes TFDS data sets in a builder's own schema, as ArrayRecord, a few records each.

A split keeps its real number of records: shards without any given record are declared
in the metadata, their files are not there.
"""

import io
import json
import pathlib

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image


def png(array):
    """Encoded bytes of an image (h, w, c)."""
    file = io.BytesIO()
    image = array[..., 0] if array.shape[-1] == 1 else array
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def example(features, **given):
    """One example of a schema: what is given, zeros for the rest."""
    return {
        key: given[key] if key in given else _blank(feature)
        for key, feature in features.items()
    }


def _blank(feature):
    of = tfds.features
    if isinstance(feature, of.Image):
        return png(np.zeros([size or 6 for size in feature.shape], np.uint8))
    if isinstance(feature, of.FeaturesDict):
        return example(feature)
    if isinstance(feature, of.Sequence):
        return []
    if isinstance(feature, of.BBoxFeature):
        return of.BBox(0.0, 0.0, 1.0, 1.0)
    if isinstance(feature, of.Text):
        return "x"
    return np.zeros(feature.shape, feature.np_dtype)


def write(data_dir, name, splits):
    """Writes a data set of TFDS.

    Args:
      data_dir: the TFDS directory.
      name: TFDS name, config and version.
      splits: split name to (number of records, {index: example}).

    Returns:
      The folder with the files.
    """
    builder = tfds.builder(name, data_dir=data_dir)
    folder = pathlib.Path(builder.data_path)
    folder.mkdir(parents=True)
    features = builder.info.features
    features.save_config(str(folder))
    infos = []
    for split, (count, records) in splits.items():
        borders = _borders(count, records)
        lengths = np.diff(borders).tolist()
        infos.append(
            {
                "name": split,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "numBytes": "1",
                "shardLengths": [str(length) for length in lengths],
            }
        )
        for shard, start in enumerate(borders[:-1]):
            if start not in records:
                continue
            file = f"{builder.name}-{split}.array_record"
            path = folder / f"{file}-{shard:05d}-of-{len(lengths):05d}"
            writer = ArrayRecordWriter(str(path), "group_size:1")
            for index in range(start, borders[shard + 1]):
                encoded = features.encode_example(records[index])
                writer.write(features.serialize_example(encoded))
            writer.close()
    config = builder.builder_config
    info = {
        "name": builder.name,
        "version": str(builder.version),
        "fileFormat": "array_record",
        "splits": infos,
        **({"configName": config.name} if config else {}),
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def _borders(count, records):
    """Where shards begin, so that each is complete or empty; and the end."""
    starts = {0, count}
    for index in records:
        starts |= {
            i for i in (index, index + 1) if (i in records) != (i - 1 in records)
        }
    return sorted(i for i in starts if i <= count)
