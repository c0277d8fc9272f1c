"""s3:// for what is read: an export, its backbone, images; as a workdir refused."""

import numpy as np
import pytest

import vpt_jax
from vpt_jax.errors import UserError
from vpt_jax.storage import cache, paths

pytestmark = pytest.mark.cloud


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """Uploads a file to s3://test under a name."""
    boto3 = pytest.importorskip("boto3")
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "VPT_JAX_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="test")
    S3FileSystem.clear_instance_cache()
    yield lambda file, name: client.upload_file(str(file), "test", name)
    S3FileSystem.clear_instance_cache()
    client.close()
    server.stop()


def test_an_export_and_its_backbone_in_s3(bucket, new_tiny, checkpoint, tmp_path):
    vpt_jax.tune(new_tiny(), tmp_path / "run")
    for file in (tmp_path / "run" / "export").iterdir():
        bucket(file, f"exports/pets/{file.name}")
    bucket(checkpoint, "vit.npz")
    model = vpt_jax.load("s3://test/exports/pets", "s3://test/vit.npz")
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    wanted = vpt_jax.load(tmp_path / "run").predict(images)
    np.testing.assert_array_equal(model.predict(images), wanted)


def test_what_is_not_there_is_one_line(bucket):
    with pytest.raises(UserError, match="s3://test/no.npz cannot be used: there is no"):
        cache.at_hand("s3://test/no.npz")
    with pytest.raises(UserError, match="there is no bucket none; make it, or mend"):
        cache.at_hand("s3://none/no.npz")


def test_without_credentials_it_says_how_to_log_in(bucket, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(UserError, match="no credentials; run 'aws configure'"):
        cache.at_hand("s3://test/vit.npz")


def test_no_run_is_written_there():
    with pytest.raises(UserError, match="checkpoints cannot be written elsewhere"):
        paths.workdir("s3://test/run")
