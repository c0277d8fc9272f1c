"""A bucket on this machine, and the command line beside it."""

import contextlib
import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest
from cloud.server import Server

if importlib.util.find_spec("gcsfs") is None:
    collect_ignore_glob = ["test_*.py"]

ROOT = pathlib.Path(__file__).parents[2]
# As launch.py, but whoever gives no sign for three seconds is gone.
QUICK = """
import sys
from vpt_jax import cli
from vpt_jax.storage import files, locks
from vpt_jax.training import loop
locks.RENEW_SECONDS, locks.STALE_SECONDS, files.FLUSH_SECONDS = 0.5, 3.0, 0.2
loop.CHECKPOINT_SECONDS = 0.2
cli.main()
"""


class Cloud(Server):
    """Buckets `test` and `read-only`, and commands that see nothing else."""

    def __init__(self):
        super().__init__("test", "read-only")
        self.read_only.add("read-only")

    @property
    def variables(self) -> dict[str, str]:
        """What a process needs to find it."""
        # What the libraries would ask Google itself.
        nothing = {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false", "NO_GCE_CHECK": "true"}
        return self.environment | nothing

    def start(self, *arguments, cwd=ROOT, **more: str) -> subprocess.Popen:
        """`launch.py` with these arguments."""
        return subprocess.Popen(
            [sys.executable, "-c", QUICK, *map(str, arguments)],
            cwd=cwd,
            env=os.environ | self.variables | {"PYTHONPATH": str(ROOT)} | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments, **more: str) -> tuple[int, str, str]:
        """(exit code, stdout, stderr) of it."""
        child = self.start(*arguments, **more)
        out, err = child.communicate(timeout=300)
        # TensorStore's own line, where nothing says who asks.
        kept = [x for x in err.splitlines() if "google_auth_provider" not in x]
        return child.returncode, out, "\n".join(kept)

    def names(self, prefix: str) -> list[str]:
        """Of objects in the bucket `test`."""
        return sorted(n for n in self.buckets["test"] if n.startswith(prefix))

    def content(self, name: str) -> bytes:
        """Of an object in the bucket `test`."""
        return self.buckets["test"][name].content

    def put(self, name: str, file: pathlib.Path) -> None:
        """A file into the bucket `test`."""
        self.write("test", name, file.read_bytes(), {})


@pytest.fixture
def cloud(monkeypatch, tmp_path):
    """Buckets for this process and those that it starts; a cache of its own."""
    server = Cloud()
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("VPT_JAX_CACHE", str(tmp_path / "cache"))
    with contextlib.closing(server.socket), forgotten():
        yield server
        server.shutdown()


@contextlib.contextmanager
def forgotten():
    """Connections to another server are not used again."""
    from gcsfs import GCSFileSystem

    GCSFileSystem.clear_instance_cache()
    yield
    GCSFileSystem.clear_instance_cache()
