"""The folder of a run or a sweep's job: whose it is, who works in it, what was decided.

All processes of one program work in one folder. Process 0 writes; what the processes
branch on, process 0 reads for all. Files appear whole or not at all.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import jax

from vpt_jax import parallel
from vpt_jax.errors import UserError
from vpt_jax.storage import locks
from vpt_jax.storage.files import make, read_json, write_json
from vpt_jax.storage.paths import Folder, explained

DECIDED = "decided.json"
SHARED_SECONDS = 30.0  # how long a file of process 0 may take to be seen by the others


class RunFolder:
    """A folder, made or found again.

    Raises:
        UserError: It cannot be written, another configuration made it, or the processes
            of this program do not share it.
    """

    def __init__(
        self,
        path: Folder,
        file: str,
        content: dict,
        kind: str,
        difference: Callable[[dict, dict], str],
    ):
        """
        Args:
            path: The folder.
            file: Name of the file that says what the folder holds.
            content: Of that file, in JSON types.
            kind: What such a folder holds, in a word.
            difference: Of what was found from `content`, in a few words.
        """
        self.path = path
        content = json.loads(json.dumps(content))
        parallel.first(lambda: _claim(path / file, content, kind, difference))
        _check_shared(path)

    def read(self, name: str) -> dict | None:
        """A JSON file, as process 0 finds it; None where there is none."""
        return parallel.from_first(lambda: read_json(self.path / name))

    def write(self, name: str, content: dict) -> None:
        """A JSON file."""
        parallel.first(lambda: write_json(self.path / name, content))

    def decided(self, what: str, decide: Callable[[], str]) -> str:
        """What was decided when it was first started, on the machine as it was then."""
        known = self.read(DECIDED) or {}
        if what not in known:
            known[what] = decide()
            self.write(DECIDED, known)
        return known[what]

    @property
    def result(self) -> dict | None:
        """What was reported at the end; None while it is not finished."""
        return self.read("result.json")

    def finish(self, result: dict) -> None:
        """Write the result: it is over."""
        self.write("result.json", result)

    @contextlib.contextmanager
    def locked(self, name: str = "run.lock", instead: str = "") -> Iterator[None]:
        """Hold a lock while the block runs; the processes of one program share it.

        Args:
            name: Of the lock; it names the process that holds it.
            instead: What else a user may do whom the lock refuses.

        Raises:
            Busy: Another program that is alive holds it.
        """
        with contextlib.ExitStack() as held:
            lock = locks.held(self.path / name, wait=False, instead=instead)
            parallel.first(lambda: held.enter_context(lock))
            yield


def unnamed(
    task: str, method: str, backbone: str, content: dict, prefix: str = ""
) -> Folder:
    """Where goes what nobody named: runs/<task>-<method>-<backbone>-<hash of content>.

    Of a task that is a path, its last part.
    """
    text = json.dumps(content, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    task = re.sub(r"[^\w.]+", "-", task.rstrip("/").rsplit("/", 1)[-1])
    return pathlib.Path("runs") / f"{prefix}{task}-{method}-{backbone}-{digest}"


def difference(a: dict, b: dict, prefix: str = "") -> str:
    """Where two configurations differ: 'epochs (100, now 50), optim.lr (...)'."""
    parts = []
    for key in sorted(a.keys() | b.keys()):
        old, new = a.get(key), b.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            if old != new:
                parts.append(difference(old, new, f"{prefix}{key}."))
        elif old != new:
            parts.append(f"{prefix}{key} ({old}, now {new})")
    return ", ".join(parts)


def environment() -> dict:
    """Versions, devices and git revision."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    git = ["git", "-C", str(pathlib.Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, check=False)
        revision = done.stdout.strip() or None
    except OSError:
        revision = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "devices": [device.device_kind for device in jax.devices()],
        "cpu": {"model": _cpu_model(), "cores": _cores()},
        "processes": jax.process_count(),
        "git_revision": revision,
        "command": sys.argv,
    }


def _cpu_model() -> str:
    """As the system names it."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = (x.partition(":")[2].strip() for x in lines if x.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _cores() -> int:
    """That this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _claim(
    file: Folder,
    content: dict,
    kind: str,
    difference: Callable[[dict, dict], str],
) -> None:
    """Write what a folder holds into a new one, compare it in an old one."""
    path = file.parent
    with explained(path):
        make(path)
        with locks.held(path / "claim.lock", wait=True):
            found = read_json(file)
            if found is None:
                _refuse_what_is_not_ours(path, kind)
                write_json(file, content)
    if found is not None and found != content:
        raise UserError(
            f"workdir {path} holds a {kind} of another config, which differs in "
            f"{difference(found, content)}; use another --workdir"
        )


def _refuse_what_is_not_ours(path: Folder, kind: str) -> None:
    # A start that was killed leaves at most a file that is not whole.
    if any(p.suffix not in (".tmp", ".lock") for p in path.iterdir()):
        raise UserError(
            f"workdir {path} is not empty and holds no {kind}; use another --workdir"
        )


def _check_shared(path: Folder) -> None:
    """That every process sees what process 0 writes.

    Else all train to the end, and hang where the first file is waited for.

    Raises:
        UserError: In every process, where one of them does not.
    """
    if jax.process_count() == 1:
        return
    file, nonce = path / "processes.json", secrets.token_hex(8)
    nonce = parallel.from_first(lambda: nonce)
    parallel.first(lambda: write_json(file, {"nonce": nonce}))
    until = time.monotonic() + SHARED_SECONDS
    while not (seen := _holds(file, nonce)) and time.monotonic() < until:
        time.sleep(0.2)
    [blind] = parallel.agree(not seen)
    if blind:
        here = "sees it" if seen else "does not"
        raise UserError(
            f"the {jax.process_count()} processes do not share --workdir {path}: "
            f"process 0 wrote into it, and this one ({jax.process_index()}, on "
            f"{socket.gethostname()}) {here}; give a folder that all of them share"
        )


def _holds(file: Folder, nonce: str) -> bool:
    try:
        return (read_json(file) or {}).get("nonce") == nonce
    except (UserError, OSError):
        return False
