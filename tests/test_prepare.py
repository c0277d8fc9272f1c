"""Preparing data: what is skipped, converted, refused, and never half-trusted."""

import json
import shutil
import struct
import sys
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data import tfds_files

from vpt_jax import data, prepare
from vpt_jax.data.source import fingerprint
from vpt_jax.errors import UserError


def write_dtd(data_dir, count=4):
    features = tfds.builder("dtd:3.0.1", data_dir=str(data_dir)).info.features
    records = {
        n: tfds_files.example(features, label=n, image=tfds_files.png(pixels))
        for n in range(count)
        for pixels in [np.full((4, 5, 3), n, np.uint8)]
    }
    return tfds_files.write(str(data_dir), "dtd:3.0.1", {"test": (count, records)})


def to_tfrecord(folder):
    """Rewrites a data set as TFDS keeps it by default."""
    builder = tfds.builder_from_directory(str(folder))
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    records = list(builder.as_data_source("test", deserialize_method=raw))
    [path] = folder.glob("*array_record-*")
    target = path.with_name(path.name.replace("array_record", "tfrecord"))
    target.write_bytes(
        b"".join(struct.pack("<QI", len(r), 0) + r + b"\0" * 4 for r in records)
    )
    path.unlink()
    info = folder / "dataset_info.json"
    text = info.read_text().replace('"array_record"', '"tfrecord"')
    info.write_text(text)
    return target


def refused(message, name, data_dir):
    with pytest.raises(UserError, match=message) as error:
        prepare.prepare(name, str(data_dir))
    assert "\n" not in str(error.value)


def test_what_is_there_is_skipped(tmp_path):
    folder = write_dtd(tmp_path)
    found = prepare.status("dtd", str(tmp_path))
    assert found.ready and found.where == str(folder) and found.what_to_do == ""
    assert 0 < found.gigabytes < 1e-3
    assert prepare.prepare("dtd", str(tmp_path)) == "ready"
    assert prepare.prepare("digits", None) == "ready"


def test_tfrecord_files_are_converted_without_tensorflow(tmp_path):
    folder = write_dtd(tmp_path)
    before = data.get_task("dtd").load("test", str(tmp_path))
    to_tfrecord(folder)
    assert prepare.status("dtd", str(tmp_path)).state == "convert"
    with pytest.raises(UserError, match="tfrecord.*--mode prepare"):
        data.get_task("dtd").load("test", str(tmp_path))
    assert prepare.prepare("dtd", str(tmp_path)) == "converted"
    after = data.get_task("dtd").load("test", str(tmp_path))
    assert fingerprint(after) == fingerprint(before)
    info = json.loads((folder / "dataset_info.json").read_text())
    assert info["fileFormat"] == "array_record"
    assert info["alternativeFileFormats"] == ["tfrecord"]
    assert not list(folder.glob("incomplete*"))
    assert prepare.prepare("dtd", str(tmp_path)) == "ready"


def test_a_truncated_tfrecord_file_is_not_trusted(tmp_path):
    folder = write_dtd(tmp_path)
    target = to_tfrecord(folder)
    whole = target.read_bytes()
    target.write_bytes(whole[:-10])
    refused("holds 3 whole records, but its metadata say 4", "dtd", tmp_path)
    assert prepare.status("dtd", str(tmp_path)).state == "convert"
    for length in (2**33, 2**62, 2**64 - 1):  # none of this may be allocated
        target.write_bytes(length.to_bytes(8, "little") + whole[8:])
        refused("holds 0 whole records, but its metadata say 4", "dtd", tmp_path)
    target.write_bytes(whole)  # what the first attempt left does not disturb the next
    assert prepare.prepare("dtd", str(tmp_path)) == "converted"
    assert len(data.get_task("dtd").load("test", str(tmp_path))) == 4


def test_an_interrupted_copy(tmp_path):
    folder = write_dtd(tmp_path)
    [shard] = folder.glob("*array_record-*")
    kept = shard.read_bytes()
    shard.unlink()
    assert prepare.status("dtd", str(tmp_path)).state == "incomplete"
    refused(f"1 files are missing, the first {shard.name}", "dtd", tmp_path)
    shard.write_bytes(kept)
    info = folder / "dataset_info.json"
    for content in ("{", '{"name": 3'):
        info.write_text(content)
        refused("metadata of dtd:3.0.1 in .*interrupted copy", "dtd", tmp_path)
    info.unlink()
    refused("metadata of dtd:3.0.1 in .*interrupted copy", "dtd", tmp_path)
    (folder / "features.json").unlink()
    assert prepare.status("dtd", str(tmp_path)).state == "unfinished"
    refused("dtd/3.0.1 holds no finished data set.*delete it", "dtd", tmp_path)


def test_what_a_killed_preparation_leaves_is_not_trusted(tmp_path):
    folder = write_dtd(tmp_path)
    folder.rename(folder.with_name("incomplete.ABC123_3.0.1"))
    found = prepare.status("dtd", str(tmp_path))
    assert found.state == "missing" and found.gigabytes == 0.7
    with pytest.raises(UserError, match="not prepared in"):
        data.get_task("dtd").load("test", str(tmp_path), limit=1)


def test_no_disk_space(tmp_path, monkeypatch):
    usage = types.SimpleNamespace(free=1.5 * prepare.GB)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    # 19.02 GB of download, the same unpacked, 19.1 GB prepared
    message = "up to 57.1 GB of disk are needed .*tmp.* has 1.5 GB free"
    refused(message, "clevr_count", tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resisc45", ["NWPU-RESISC45.rar", "manual/NWPU-RESISC45/<class>/"]),
        ("retinopathy", ["kaggle.com", "manual/trainLabels.csv"]),
        ("sun397", ["is dead", "SUN397.tar.gz", "downloads/manual;"]),
        ("stanford_cars", ["cars_test_annos_withlabels.mat", "/stanford_cars"]),
        ("nabirds", ["train.json, val.json and test.json", "DIR/nabirds"]),
    ],
)
def test_what_must_be_done_by_hand_is_said_exactly(name, words, tmp_path):
    found = prepare.status(name, str(tmp_path))
    assert found.state == "missing" and "\n" not in found.what_to_do
    assert all(word in found.what_to_do for word in words)
    refused(f"task {name}: ", name, tmp_path)


def test_without_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    refused(
        r"needs TensorFlow; install it with pip install 'vpt_jax\[prepare\]'",
        "svhn",
        tmp_path,
    )


class Builder:
    """What `prepare` uses of a TFDS builder."""

    data_path = "there"
    url_infos = None

    def __init__(self, error=None):
        self.error, self.given = error, None

    def download_and_prepare(self, **given):
        self.given = given
        if self.error is not None:
            raise self.error


@pytest.fixture
def builder(monkeypatch, tmp_path):
    """Stands for TFDS, and records which devices TensorFlow is kept from."""
    hidden = []
    config = types.SimpleNamespace(
        set_visible_devices=lambda devices, kind: hidden.append((devices, kind))
    )
    fake = types.SimpleNamespace(config=config)
    monkeypatch.setitem(sys.modules, "tensorflow", fake)
    builder = Builder()
    builder.hidden = hidden
    monkeypatch.setattr(
        prepare.reading, "find", lambda *_: (prepare.reading.MISSING, builder)
    )
    return builder


def test_tfds_is_asked_for_array_record_and_sees_no_gpu(builder, tmp_path):
    assert prepare.prepare("svhn", str(tmp_path)) == "prepared"
    assert builder.given["file_format"] == "array_record"
    assert builder.given["download_dir"] == f"{tmp_path}/downloads"
    assert builder.given["download_config"].manual_dir == f"{tmp_path}/downloads/manual"
    assert builder.hidden == [([], "GPU"), ([], "TPU")]


def test_a_failed_preparation_is_one_line(builder, tmp_path):
    builder.error = OSError("No space left on device\nmore")
    message = r"svhn_cropped:3.1.0 failed \(OSError: No space left on device\)"
    refused(message, "svhn", tmp_path)
    builder.error = TimeoutError("no answer")
    refused("no answer.*get EuroSAT.zip", "eurosat", tmp_path)


def test_files_fetched_by_hand_let_it_begin(builder, tmp_path):
    refused("must be fetched by hand", "resisc45", tmp_path)
    (tmp_path / "downloads" / "manual" / "NWPU-RESISC45").mkdir(parents=True)
    assert prepare.prepare("resisc45", str(tmp_path)) == "prepared"


# ---- the commands


def test_prepare_goes_on_after_a_failure(command, tmp_path, monkeypatch):
    write_dtd(tmp_path)
    for name in data.task_names("natural"):
        prepare.status(name, str(tmp_path))  # TFDS looks for TensorFlow the first time
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    code, out, err = command(
        "--mode=prepare",
        "--config=configs/vtab.py:natural",
        f"--config.data.dir={tmp_path}",
    )
    assert code == 2 and "dtd: ready" in out
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 6 and "task cifar100" in errors[0]
    code, out, err = command(
        "--mode=prepare",
        "--config=configs/vtab.py:dtd",
        f"--config.data.dir={tmp_path}",
    )
    assert (code, out) == (0, "dtd: ready\n")
    code, _, err = command("--mode=prepare", "--config=configs/vtab.py:mnist")
    assert code == 2 and "unknown task 'mnist'" in err


def test_doctor_shows_a_table_over_tasks(command, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    write_dtd(tmp_path)
    arguments = (
        "--mode=doctor",
        "--config=configs/vtab.py:natural",
        f"--config.data.dir={tmp_path}",
        "--config.backbone.name=vit_nano",
    )
    code, out, _ = command(*arguments)
    assert code == 2
    rows = [line for line in out.splitlines() if line.startswith("│")]
    [dtd] = [line for line in rows if "│ dtd " in line]
    assert "yes" in dtd and "ready; 0.0 GB" in dtd
    [svhn] = [line for line in rows if "│ svhn " in line]
    assert "no" in svhn and "missing: --mode prepare" in svhn and "0.7 GB" in svhn
