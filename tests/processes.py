"""Other processes that tests meet."""

import contextlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

PROGRAM = """
import pathlib, sys
from vpt_jax.storage.locks import held
with held(pathlib.Path(sys.argv[1]), wait=False):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holding(lock: pathlib.Path) -> Iterator[int]:
    """The number of a process that holds a lock file, and is then killed."""
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    with child:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        yield child.pid
        child.kill()
