"""Recipes run here with tools of the same names that record what they are asked."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import yaml

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"

TOOL = f"""#!{sys.executable} -SE
import json, os, signal, subprocess, sys, time

name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
record = os.environ["RECORD"]
with open(record) as file:
    lines = [json.loads(line) for line in file]

def note(*line):
    with open(record, "a") as file:
        file.write(json.dumps([os.getpid(), *line]) + "\\n")

def save(*_):
    time.sleep(0.3)
    note("saved")
    sys.exit(143)

note(name, *words)
option = [word.partition("=")[2] for word in words if word.startswith("--command=")]
if name == "python":
    before = sum(line[1] == "python" for line in lines)
    code = (os.environ.get("CODES", "0").split() + ["0"] * before)[before]
    if code == "until-told":
        signal.signal(signal.SIGTERM, save)
        note("ready")
        time.sleep(60)
    sys.exit(int(code))
if name in ("docker", "scancel") and words[0] != "run":
    for line in lines:
        if line[1] == "ready":
            os.kill(line[0], signal.SIGTERM)
elif name == "ssh":
    sys.exit(subprocess.call(["bash", "-c", words[-1]]))
elif option:
    sys.exit(subprocess.call(["bash", "-c", option[0]]))
elif name == "gcloud" and "describe" in words:
    print("ACTIVE")
elif name in ("sudo", "srun"):
    os.execvp(words[0], words)
elif name == "docker":
    words = words[words.index("python"):]
    os.execvp(words[0], words)
"""
TOOLS = "python ssh gcloud sudo docker srun scancel scontrol xpk".split()


def pytest_ignore_collect(collection_path, config):
    """Only `pytest -m launch` needs the tools themselves."""
    tools = collection_path.name == "test_tools.py"
    return True if tools and "launch" not in config.option.markexpr else None


class Recipe:
    """A shell command, run where the tools only record.

    Args:
        folder: An empty one, to run in.
        command: Words.
        variables: Of the environment; CODES has the exit codes of python, in turn, or
            `until-told` for one that ends with SIGTERM.
    """

    def __init__(self, folder, command, **variables):
        self._record, tools = folder / "record", folder / "tools"
        self._record.touch()
        for part in (folder, folder / "vpt_jax"):  # the checkout here, and by ssh
            (part / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
            (part / ".venv" / "bin" / "activate").touch()
        tools.mkdir()
        for name in TOOLS:
            (tools / name).write_text(TOOL)
            (tools / name).chmod(0o755)
        path = f"{tools}{os.pathsep}{os.environ['PATH']}"
        given = {"PATH": path, "RECORD": str(self._record), "PAUSE": "0", **variables}
        self.process = subprocess.Popen(
            command, cwd=folder, env=os.environ | given, start_new_session=True
        )

    def lines(self):
        """The tools in turn, with what they were asked; ready and saved of python."""
        return [json.loads(x)[1:] for x in self._record.read_text().splitlines()]

    def told(self, name):
        """What a tool was asked, each time."""
        return [words for tool, *words in self.lines() if tool == name]

    def end(self):
        """The exit code."""
        try:
            return self.process.wait(60)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)

    def wait_for(self, name, count):
        """Until a tool was asked so often."""
        until = time.monotonic() + 60
        while len(self.told(name)) < count:
            assert time.monotonic() < until and self.process.poll() is None
            time.sleep(0.05)


@pytest.fixture
def start(tmp_path):
    """Starts a file of launch/ by its name, with arguments and variables."""

    def start(name, *arguments, **variables):
        command = ["bash", str(LAUNCH / name), *arguments]
        if name.endswith(".sbatch"):
            variables = SLURM | {"SLURM_SUBMIT_DIR": str(tmp_path)} | variables
        elif name.endswith(".yaml"):
            command = ["bash", "-c", yaml.safe_load((LAUNCH / name).read_text())["run"]]
            variables = SKYPILOT | variables
        return Recipe(tmp_path, command, **variables)

    return start


@pytest.fixture
def hosts(tmp_path):
    """A file of two."""
    path = tmp_path / "hosts"
    path.write_text("# ours\nme@10.0.0.1\n10.0.0.2\n")
    return str(path)


SLURM = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "32"}
SKYPILOT = {
    "SKYPILOT_NUM_NODES": "2",
    "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
    "SKYPILOT_NODE_RANK": "1",
}
