"""Reading what TFDS prepared: slices, limits, and what goes wrong on a disk."""

import io
import json
import operator
import subprocess
import sys

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from vpt_jax.data import reading
from vpt_jax.data.source import to_examples
from vpt_jax.errors import UserError

NAME = reading.TfdsSet("cifar100:3.0.2")
FEATURES = "tensorflow_datasets.core.features."


def png(value):
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def record(image, label):
    feature = tf_feature_pb2.Feature
    features = {
        "image": feature(bytes_list=tf_feature_pb2.BytesList(value=[image])),
        "label": feature(int64_list=tf_feature_pb2.Int64List(value=[label])),
    }
    example = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=features))
    return example.SerializeToString()


def prepare(
    root, records, num_examples=None, file_format="array_record", class_names="abcdef"
):
    """Writes a train split in the layout of TFDS; record i is an image of value i."""
    directory = root / "cifar100" / "3.0.2"
    directory.mkdir(parents=True)
    split = {
        "name": "train",
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "numBytes": "1",
        "shardLengths": [str(num_examples or len(records))],
    }
    info = {
        "name": "cifar100",
        "version": "3.0.2",
        "fileFormat": file_format,
        "splits": [split],
    }
    dimensions = {"dimensions": ["4", "4", "3"]}
    features = {
        "image": {
            "pythonClassName": FEATURES + "image_feature.Image",
            "image": {"shape": dimensions, "dtype": "uint8"},
        },
        "label": {
            "pythonClassName": FEATURES + "class_label_feature.ClassLabel",
            "classLabel": {"numClasses": str(len(class_names))},
        },
    }
    features = {
        "pythonClassName": FEATURES + "features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }
    (directory / "dataset_info.json").write_text(json.dumps(info))
    (directory / "features.json").write_text(json.dumps(features))
    (directory / "label.labels.txt").write_text("\n".join(class_names))
    path = directory / f"cifar100-train.{file_format}-00000-of-00001"
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for item in records:
        writer.write(item)
    writer.close()
    return str(root)


def read(data_dir, slice_spec, limit=None):
    builder = reading.open_builder("cifar100", NAME, data_dir)
    source = reading.read_slice(builder, slice_spec, operator.itemgetter("label"))
    return to_examples(source if limit is None else source.select(range(limit)))


def good_records(count):
    return [record(png(i), i % 6) for i in range(count)]


def test_a_slice_keeps_order_and_position(tmp_path):
    data_dir = prepare(tmp_path, good_records(10))
    examples = read(data_dir, "train[3:6]")
    assert examples.images.shape == (3, 4, 4, 3) and examples.images.dtype == np.uint8
    assert examples.images[:, 0, 0, 0].tolist() == [3, 4, 5]
    assert examples.labels.tolist() == [3, 4, 5] and examples.labels.dtype == np.int32
    assert examples.ids == tuple(f"cifar100/train/{i:06d}" for i in (3, 4, 5))
    assert read(data_dir, "train[80%:]").images[:, 0, 0, 0].tolist() == [8, 9]
    assert len(read(data_dir, "train")) == 10


def test_the_home_directory_is_expanded(tmp_path, monkeypatch):
    prepare(tmp_path / "data", good_records(2))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(read("~/data", "train")) == 2


def test_limit_does_not_touch_later_records(tmp_path):
    damaged = record(b"not an image", 0)
    data_dir = prepare(tmp_path, [*good_records(3), damaged])
    assert read(data_dir, "train", limit=3).images[:, 0, 0, 0].tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="record 3 of split 'train'"):
        read(data_dir, "train", limit=4)


def test_fewer_records_than_the_metadata_states(tmp_path):
    data_dir = prepare(tmp_path, good_records(5), num_examples=8)
    assert len(read(data_dir, "train[:5]")) == 5
    with pytest.raises(UserError, match="record 5 of split 'train'"):
        read(data_dir, "train[4:]")


def test_a_missing_file(tmp_path):
    data_dir = prepare(tmp_path, good_records(2))
    file = next(tmp_path.rglob("*array_record*"))
    builder = reading.open_builder("cifar100", NAME, data_dir)
    assert reading.missing_shards(builder) == []
    file.unlink()
    assert reading.missing_shards(builder) == [file.name]
    with pytest.raises(UserError, match="record 0 of split 'train'"):
        read(data_dir, "train")


@pytest.mark.parametrize("slice_spec", ["train[:9]", "test", "train[5:7]"])
def test_a_slice_that_does_not_exist(tmp_path, slice_spec):
    data_dir = prepare(tmp_path, good_records(4))
    with pytest.raises(UserError, match="there is no t"):
        read(data_dir, slice_spec)


@pytest.mark.parametrize(
    "name", ["cifar100:3.0.2", "cifar100:9.0.0", "no_such_dataset:1.0.0"]
)
def test_data_that_is_not_prepared(tmp_path, name):
    with pytest.raises(UserError) as caught:
        reading.open_builder("some_task", reading.TfdsSet(name), str(tmp_path))
    message = str(caught.value)
    assert f"task some_task: {name} is not prepared in {tmp_path}" in message
    assert "--mode prepare" in message and f"--config.data.dir={tmp_path}" in message
    assert "\n" not in message


def test_a_half_made_directory_counts_as_not_prepared(tmp_path):
    (tmp_path / "cifar100" / "3.0.2").mkdir(parents=True)
    assert reading.find(NAME, str(tmp_path))[0] == "unfinished"
    with pytest.raises(UserError, match="not prepared in"):
        reading.open_builder("cifar100", NAME, str(tmp_path))


def test_tfrecord_files_must_be_converted(tmp_path):
    data_dir = prepare(tmp_path, good_records(2), file_format="tfrecord")
    message = "tfrecord.*must be converted to array_record: .*--mode prepare"
    with pytest.raises(UserError, match=message):
        reading.open_builder("cifar100", NAME, data_dir)


def test_tensorflow_is_never_imported(tmp_path):
    # A stand-in that ends the process, so that no caller can forgive the import.
    fake = tmp_path / "path" / "tensorflow"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("import os; os._exit(77)")
    data_dir = prepare(tmp_path / "data", good_records(2))
    program = f"""
import sys
sys.path.insert(0, {str(fake.parent)!r})
from vpt_jax.data import get_task, reading
builder = reading.open_builder("cifar100", reading.{NAME!r}, {data_dir!r})
source = reading.read_slice(builder, "train", lambda record: record["label"])
assert len(source.read(range(len(source)))) == 2 and list(source.labels) == [0, 1]
assert get_task("cifar100").class_names({data_dir!r}) == tuple("abcdef")
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert done.returncode == 0, (done.returncode, done.stderr.decode())
