"""Several processes: two on loopback do what one does; a wrong number is refused."""

import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from training import together

from vpt_jax import parallel
from vpt_jax.errors import UserError


@pytest.mark.slow
def test_two_processes_equal_one(checkpoint, new_tiny, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-m", "training.together", tmp_path / "two", checkpoint]
    started = [
        subprocess.Popen(
            [*map(str, command), str(port), str(number)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    printed = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    scores = [[float(line) for line in lines.split("\n")[-3:-1]] for lines in printed]
    assert scores[0] == scores[1]  # only the first writes, all return the result

    together.main(tmp_path / "one", str(checkpoint))
    one, two = tmp_path / "one", tmp_path / "two"
    for run in ("streamed", "trials"):
        lines = [
            [
                json.loads(line)
                for line in (path / run / "metrics.jsonl").read_text().splitlines()
            ]
            for path in (one, two)
        ]
        for a, b in zip(*lines, strict=True):
            assert a == pytest.approx(b, abs=1e-5)
        files = sorted((one / run).rglob("tuned.safetensors"))
        assert len(files) == {"streamed": 1, "trials": 2}[run]
        for file in files:
            other = load_file(two / file.relative_to(one))
            for name, tensor in load_file(file).items():
                np.testing.assert_allclose(tensor, other[name], rtol=0, atol=1e-5)


@pytest.fixture
def joined(monkeypatch):
    """What `jax.distributed.initialize` was given; four processes come of it."""
    calls = []
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda *a, **k: calls.append((a, k))
    )
    monkeypatch.setattr(jax, "process_count", lambda: 4 if calls else 1)
    for name in parallel.TASKS:
        monkeypatch.delenv(name, raising=False)
    return calls


def test_what_the_user_says_is_passed_on(joined):
    parallel.join(4, "10.0.0.1:1234", 2)
    [(given, options)] = joined
    assert given == ("10.0.0.1:1234", 4, 2)
    assert options["cluster_detection_method"] == "deactivate"
    parallel.join(4, None, None)  # found out from the cluster
    assert joined[1][0] == (None, None, None)
    assert not jax.config.jax_enable_preemption_service  # SIGTERM is the loop's
    parallel.join(None, None, None)
    assert len(joined) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, None, None), "--processes=3, but 4 run"),
        ((2, "host:1", None), "both or not at all"),
        ((None, None, 1), "both or not at all"),
        ((None, "host:1", 1), "--coordinator needs --processes=N"),
        ((2, None, 1), "both or not at all"),
        ((2, "host:1", 2), "--process=2 must be from 0 to 1"),
    ],
)
def test_a_wrong_number_of_processes(joined, arguments, message):
    with pytest.raises(UserError, match=message):
        parallel.join(*arguments)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("coordinator_address should be defined."), "give --coordinator="),
        (RuntimeError("deadline exceeded"), "did not all come together within 300 s"),
    ],
)
def test_processes_that_do_not_meet(joined, monkeypatch, error, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(UserError, match=message):
        parallel.join(4, None, None)


@pytest.mark.parametrize("name", parallel.TASKS)
def test_many_that_were_told_nothing_of_each_other(joined, monkeypatch, name):
    monkeypatch.setenv(name, "4")
    with pytest.raises(UserError, match="add --processes=4"):
        parallel.join(None, None, None)
    parallel.join(4, None, None)


def test_what_the_first_process_cannot_do_stops_the_others(monkeypatch):
    def fail():
        raise UserError("no room")

    with pytest.raises(UserError, match="no room"):
        parallel.first(fail)
    monkeypatch.setattr(parallel, "is_first", lambda: False)
    parallel.first(fail)  # not its work
    monkeypatch.setattr(parallel, "agree", lambda *_: (True,))
    with pytest.raises(UserError, match="process 0 cannot go on"):
        parallel.first(fail)


def test_no_process_may_be_left_without_work(monkeypatch):
    devices = jax.devices() * 2
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="1 trials of batch_size 3 cannot be spread"):
        parallel.make_mesh(1, 3)
