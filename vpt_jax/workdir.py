"""The folder of one run: what is written when, and what a second start finds.

config.json        the resolved configuration
environment.json   versions, devices, git revision
metrics.jsonl      one line per epoch and trial
checkpoints/       the training state (training.state)
export/            the tuned tensors (export)
result.json        last of all: a run that has it is finished
figures/, tensorboard/
"""

import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable

import jax
from ml_collections import ConfigDict
from tensorboardX import SummaryWriter

from vpt_jax import parallel
from vpt_jax.config import to_dict
from vpt_jax.errors import UserError
from vpt_jax.training.loop import Epoch


def default_path(config: ConfigDict) -> pathlib.Path:
    """runs/<task>-<method>-<backbone>-<hash of the whole configuration>.

    Of a task that is a path, its last part.
    """
    text = json.dumps(to_dict(config), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    task = re.sub(r"[^\w.]+", "-", config.task.rstrip("/").rsplit("/", 1)[-1])
    name = f"{task}-{config.method.name}-{config.backbone.name}-{digest}"
    return pathlib.Path("runs") / name


class Workdir:
    """A run's folder, made or found again.

    Raises:
        UserError: It cannot be written, or another configuration made it.
    """

    def __init__(self, path: pathlib.Path, config: ConfigDict):
        self.path = path
        wanted = json.loads(json.dumps(to_dict(config)))

        def start() -> None:
            claim(path / "config.json", wanted, "run", difference)
            write_json(path / "environment.json", environment())

        parallel.first(start)

    @property
    def result(self) -> dict | None:
        """What the finished run reported; None while it is not finished."""
        return read_json(self.path / "result.json")

    def finish(self, result: dict) -> None:
        """Write the result: the run is over."""
        parallel.first(lambda: write_json(self.path / "result.json", result))


def claim(
    file: pathlib.Path, content: dict, kind: str, difference: Callable[..., str]
) -> None:
    """Make a folder that a file of it describes, or find it again.

    Args:
        file: Written into a new folder; compared in one that is there.
        content: What it must hold.
        kind: What such a folder holds, in a word.
        difference: Of what was found from `content`, in a few words.

    Raises:
        UserError: The folder cannot be written, or is another one's.
    """
    path = file.parent
    try:
        path.mkdir(parents=True, exist_ok=True)
        found = read_json(file)
        if found is None:
            # A start that was killed leaves at most a file that is not whole.
            others = [p for p in path.iterdir() if p.suffix not in (".tmp", ".lock")]
            if others:
                raise UserError(
                    f"workdir {path} is not empty and holds no {kind}; use another "
                    "--workdir"
                )
            write_json(file, content)
    except OSError as error:
        raise UserError(f"workdir {path} cannot be used: {error}") from error
    if found is not None and found != content:
        raise UserError(
            f"workdir {path} holds a {kind} of another config, which differs in "
            f"{difference(found, content)}; use another --workdir"
        )


class MetricsLog:
    """metrics.jsonl and TensorBoard, cut back to the epochs that are kept."""

    def __init__(self, workdir: pathlib.Path, hypers: list[dict]):
        self._path = workdir / "metrics.jsonl"
        self._board = workdir / "tensorboard"
        self._hypers = hypers

    def start(self, epochs_done: int) -> None:
        """Drop what a killed run wrote after its last checkpoint."""
        kept = [line for line in self.lines() if line["epoch"] <= epochs_done]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        parallel.first(lambda: write_text(self._path, text))
        purge = epochs_done + 1 if epochs_done else None
        self._writer = None
        if parallel.is_first():
            self._writer = SummaryWriter(str(self._board), purge_step=purge)

    def add(self, epoch: Epoch) -> None:
        """One line, and one point on each curve."""
        if self._writer is None:
            return
        line = {
            "epoch": epoch.epoch,
            "trial": epoch.trial,
            **self._hypers[epoch.trial],
            "train_loss": epoch.train_loss,
            "train_top1": epoch.train_top1,
            "val_top1": epoch.val_top1,
        }
        with open(self._path, "a") as file:
            file.write(json.dumps(line) + "\n")
        for name in ("train_loss", "train_top1", "val_top1"):
            if line[name] is not None:
                tag = f"trial_{epoch.trial}/{name}"
                self._writer.add_scalar(tag, line[name], epoch.epoch)

    def lines(self) -> list[dict]:
        """All whole lines; a line that a kill cut short is left out."""
        return read_lines(self._path) if self._path.exists() else []

    def close(self) -> None:
        """Flush TensorBoard's events; the lines are there for every process."""
        parallel.first(lambda: self._writer.close())


def read_lines(path: pathlib.Path) -> list[dict]:
    """The whole lines of a metrics.jsonl."""
    return list(_parse(path.read_text().splitlines()))


def _parse(lines: Iterable[str]) -> Iterable[dict]:
    for line in lines:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def write_json(path: pathlib.Path, content: dict) -> None:
    """Write whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: pathlib.Path) -> dict | None:
    """The content; None when there is no such file."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error


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
        "processes": jax.process_count(),
        "git_revision": revision,
        "command": sys.argv,
    }


def write_text(path: pathlib.Path, text: str) -> None:
    """Write whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


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
