"""Runs and sweeps that know nothing but a bucket, against the same ones on a disk."""

import json
import pathlib
import shutil
import signal
import socket
import time

import pytest
import tensorflow_datasets as tfds
from data import tfds_files

pytestmark = pytest.mark.cloud

TIMES = ("train_seconds", "compile_seconds", "images_per_second", "peak_memory_bytes")
QUICKSTART = (
    *("--config", "configs/quickstart.py", "--config.epochs=2", "--config.val_every=1"),
    *("--config.data.train_percent=10", "--config.data.test_examples=100"),
    "--config.beside=linear optim.lr=0.05",
)
SWEEP = (
    *("--mode=sweep", "--config", "configs/quickstart.py:linear"),
    *("--config.task=digits", "--config.epochs=4", "--config.sweep.seeds=(1, 2)"),
    "--config.sweep.base_lrs=(0.3, 0.1, 0.03)",
    "--config.sweep.weight_decays=(0.1, 0.01, 0.001, 0.0)",
    "--config.sweep.variants=('plain: epochs=4', 'longer: epochs=6')",
)


def figures(text):
    """What a result.json says, without times."""
    content = json.loads(text)
    for one in (content, *content.get("beside", {}).values()):
        for key in TIMES:
            one.pop(key, None)
    content.get("sweep", {}).pop("grid_seconds", None)
    return content


def lines(text):
    return sorted(text.splitlines())


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The quickstart, short, on a disk."""
    from cloud.conftest import Cloud

    workdir = tmp_path_factory.mktemp("local") / "run"
    server = Cloud()
    code, _, err = server.run(*QUICKSTART, "--workdir", workdir)
    server.shutdown()
    server.server_close()
    assert code == 0, err
    return workdir


def assert_same(cloud, prefix, local, checkpoint=None):
    """Figures, curves and exports."""
    own = figures(cloud.content(f"{prefix}/result.json"))
    wanted = figures((local / "result.json").read_text())
    assert own == wanted
    for part in ("", "beside/linear/"):
        tuned = cloud.content(f"{prefix}/{part}export/tuned.safetensors")
        assert tuned == (local / f"{part}export" / "tuned.safetensors").read_bytes()
        curve = cloud.content(f"{prefix}/{part}metrics.jsonl").decode()
        assert lines(curve) == lines((local / f"{part}metrics.jsonl").read_text())


def test_the_quickstart_in_a_bucket(cloud, local):
    """Its checkpoint too; then what can be done with the run."""
    weights = pathlib.Path(__file__).parents[2] / "vpt_jax/assets/vit_nano.npz"
    cloud.put("weights/nano.npz", weights)
    given = "--config.backbone.checkpoint=gs://test/weights/nano.npz"
    workdir = "gs://test/runs/a"
    code, out, err = cloud.run(*QUICKSTART, given, "--workdir", workdir)
    assert (code, err.count("Traceback")) == (0, 0), err
    assert f"{workdir}/figures/attention.png" in out
    found, wanted = cloud.content("runs/a/result.json"), local / "result.json"
    found, wanted = figures(found), figures(wanted.read_text())
    sources = {key for key in found if found[key] != wanted[key]}
    assert sources <= {"checkpoint", "beside"}
    tuned = cloud.content("runs/a/export/tuned.safetensors")
    assert tuned == (local / "export" / "tuned.safetensors").read_bytes()
    assert any("tensorboard/events" in name for name in cloud.names("runs/a/"))
    assert cloud.content("runs/a/figures/attention.png").startswith(b"\x89PNG")

    again = cloud.run(*QUICKSTART, given, "--workdir", workdir)
    assert again[0] == 0 and "holds a finished run" in again[2]
    scored = cloud.run("--mode=eval", *QUICKSTART[:2], given, "--workdir", workdir)
    assert scored[0] == 0 and f"{found['test_top1']:.2f}" in scored[1]
    told = cloud.run("--mode=report", "--workdir", "gs://test/runs")
    assert told[0] == 0 and "gs://test/runs/report/report.md" in told[1]
    assert b"vpt-deep" in cloud.content("runs/report/report.md")


def test_images_and_predictions_in_a_bucket(cloud, local, tmp_path):
    """Classify a folder of a bucket with a run of another one."""
    for file in local.rglob("*"):
        if file.is_file() and "checkpoints" not in file.parts:
            cloud.put(f"run/{file.relative_to(local)}", file)
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(tfds_files.png(tiny_image()))
        cloud.put(f"photos/{name}.png", tmp_path / f"{name}.png")
    arguments = "--mode=predict", "--workdir=gs://test/run", "--images=gs://test/photos"
    code, out, err = cloud.run(*arguments)
    assert code == 0 and "2 images classified: gs://test/run/predictions.csv" in out, (
        err
    )
    [head, *rows] = cloud.content("run/predictions.csv").decode().splitlines()
    assert head.startswith("path,class") and len(rows) == 2


def tiny_image():
    import numpy as np

    return np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)


def test_data_in_a_bucket(cloud, tmp_path):
    """A folder of images, copied to this machine once."""
    image = tiny_image()
    for part in ("train", "val", "test"):
        for label in ("cat", "dog"):
            for n in range(3):
                file = tmp_path / "x.png"
                file.write_bytes(tfds_files.png((image + 9 * n) // (2 - (label > "d"))))
                cloud.put(f"pets/{part}/{label}/{n}.png", file)
    config = "--config=configs/folder.py:gs://test/pets,linear,vit_nano"
    flags = config, "--config.epochs=2", "--workdir=gs://test/pets-run"
    code, out, err = cloud.run(*flags)
    assert code == 0 and "linear on" in out, err
    assert figures(cloud.content("pets-run/result.json"))["status"] == "ok"


def test_a_tfds_set_in_a_bucket(cloud, tmp_path):
    """Its version is copied to this machine once, and then read from there."""
    name = "food101:2.0.0"
    features = tfds.builder(name, data_dir=str(tmp_path)).info.features
    records = {n: tfds_files.example(features, label=n) for n in range(4)}
    splits = {part: (4, records) for part in ("train", "validation", "test")}
    folder = tfds_files.write(str(tmp_path), name, splits)
    for file in folder.iterdir():
        cloud.put(f"tfds/food101/2.0.0/{file.name}", file)
    flags = (
        "--config=configs/tfds.py:food101,linear,vit_nano",
        *("--config.data.dir=gs://test/tfds", "--config.epochs=2"),
        "--workdir=gs://test/food",
    )
    code, out, err = cloud.run(*flags)
    assert code == 0 and "linear on" in out, err
    found = figures(cloud.content("food/result.json"))
    assert (found["n_train"], found["n_test"], found["status"]) == (8, 4, "ok")
    assert len(list((tmp_path / "cache" / "buckets").iterdir())) == 1


@pytest.mark.parametrize("moment", ["run.lock/", "checkpoints/", "export/"])
def test_kill_9_and_again(cloud, local, moment):
    """The next one waits for a sign of the first, takes over and loses nothing."""
    arguments = *QUICKSTART, "--workdir", "gs://test/run"
    child = cloud.start(*arguments)
    until = time.monotonic() + 120
    beside = ("run/beside/linear/" if moment == "export/" else "run/") + moment
    while not cloud.names(beside) and time.monotonic() < until:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL and not cloud.names("run/result.json")
    code, _, err = cloud.run(*arguments)
    assert code == 0 and "which is gone: taken over" in err, err
    assert_same(cloud, "run", local)


def test_a_bad_connection_loses_nothing(cloud, local):
    """Every tenth answer is 503; every fiftieth request is done, but not answered."""
    cloud.fail_every, cloud.drop_every = 10, 50
    code, _, err = cloud.run(*QUICKSTART, "--workdir", "gs://test/run")
    assert code == 0, err
    cloud.fail_every = cloud.drop_every = 0
    assert_same(cloud, "run", local)


def test_sigterm_saves_and_another_continues(cloud, local):
    arguments = *QUICKSTART, "--workdir", "gs://test/run"
    child = cloud.start(*arguments)
    until = time.monotonic() + 120
    while not cloud.names("run/checkpoints/") and time.monotonic() < until:
        time.sleep(0.02)
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate()
    assert child.returncode == 128 + signal.SIGTERM and "saved" in err
    code, _, err = cloud.run(*arguments)
    assert code == 0 and "taken over" not in err, err  # it was let go of
    assert_same(cloud, "run", local)


def test_shards_that_share_nothing_but_the_bucket(cloud, tmp_path):
    """Two variants of 12 trials; one of the processes is killed and replaced."""
    code, _, err = cloud.run(*SWEEP, "--workdir", tmp_path / "local")
    assert code == 0, err
    flags = *SWEEP, "--workdir", "gs://test/sweep"
    first = cloud.start(*flags, "--config.sweep.shard=0/2")
    second = cloud.start(*flags, "--config.sweep.shard=1/2")
    until = time.monotonic() + 120
    while not cloud.names("sweep/plain/units/") and time.monotonic() < until:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    code, _, err = cloud.run(*flags, "--config.sweep.shard=0/2")
    assert code == 0, err
    _, err = second.communicate()
    assert second.returncode == 0, err
    results = sorted((tmp_path / "local").rglob("result.json"))
    assert len(results) == 4
    for path in results:
        name = path.relative_to(tmp_path / "local").as_posix()
        assert figures(cloud.content(f"sweep/{name}")) == figures(path.read_text())


def test_two_processes_with_disks_of_their_own(cloud, local, tmp_path):
    """One run on loopback: neither sees the other's folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for index in range(2):
        home = tmp_path / str(index)
        home.mkdir()
        shutil.copytree(pathlib.Path("configs"), home / "configs")
        children.append(
            cloud.start(
                *QUICKSTART,
                *("--workdir=gs://test/run", "--processes=2", f"--process={index}"),
                f"--coordinator=127.0.0.1:{port}",
                cwd=home,
                HOME=str(home),
                VPT_JAX_CACHE=str(home / "cache"),
            )
        )
    errors = [child.communicate(timeout=300)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], errors
    found = figures(cloud.content("run/result.json"))
    assert abs(found["test_top1"] - figures_of(local)["test_top1"]) < 1


def figures_of(local):
    return figures((local / "result.json").read_text())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workdir=gs://nowhere/x"], "there is no bucket nowhere"),
        (["--workdir=gs://read-only/x"], "bucket read-only does not allow it"),
        (["--workdir=s3://test/x"], "or gs://bucket/path"),
        (["--workdir=gs://"], "names no bucket"),
        (
            [
                "--workdir=gs://test/x",
                "--config.backbone.checkpoint=gs://test/none.npz",
            ],
            "gs://test/none.npz cannot be used: there is nothing of that name",
        ),
    ],
)
def test_what_cannot_be_used_is_one_line(cloud, flags, message):
    code, out, err = cloud.run(*QUICKSTART, *flags)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1 and message in err


def test_a_living_process_is_not_disturbed(cloud):
    """Who comes second is refused within the time of a sign."""
    arguments = *QUICKSTART, "--config.epochs=500", "--workdir", "gs://test/run"
    child = cloud.start(*arguments)
    until = time.monotonic() + 120
    while not cloud.names("run/run.lock/") and time.monotonic() < until:
        time.sleep(0.02)
    code, _, err = cloud.run(*arguments)
    assert code == 2 and "is being worked on by process" in err
    child.kill()
    child.communicate()
