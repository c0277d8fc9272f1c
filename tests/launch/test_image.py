"""The Dockerfile and what is sent to be built."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
LINES = (ROOT / ".dockerignore").read_text().splitlines()
SENT = [line[1:] for line in LINES if line.startswith("!")]


def test_sigterm_reaches_python_and_the_user_is_not_root():
    [entry] = re.findall("^ENTRYPOINT (.*)$", DOCKERFILE, re.M)
    assert json.loads(entry) == ["tini", "--"]
    [command] = re.findall("^CMD (.*)$", DOCKERFILE, re.M)
    assert json.loads(command)[:2] == ["python", "launch.py"]
    assert re.findall("^(?:ARG USER=|USER )(.*)$", DOCKERFILE, re.M) == ["vpt", "$USER"]


def test_what_is_sent_suffices(tmp_path):
    """For `pip install .`, as its metadata says, and for a run."""
    assert LINES[1] == "*"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    copied = re.findall("^COPY (.*) [.]$", DOCKERFILE, re.M)
    assert copied == ["requirements.txt", "."]
    needed = {project["readme"], *project["license-files"], copied[0], "pyproject.toml"}
    assert needed <= set(SENT)
    for name in SENT:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    command = "launch.py --config configs/vtab.py:cifar100 --mode doctor".split()
    done = subprocess.run(
        [sys.executable, *command, f"--config.data.dir={tmp_path}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "cifar100" in done.stdout, done.stderr
