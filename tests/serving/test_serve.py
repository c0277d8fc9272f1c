"""A server as a process of its own: many clients at once, and its end."""

import concurrent.futures
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from serving import exports
from serving.test_app import INFER, asking, encoded, picture

import vpt_jax
from vpt_jax.config import base


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("serve")
    config = base("digits", "linear", "vit_nano")
    return {
        name: exports.write(root / name, config, exports.names(name, 10), seed)
        for seed, name in enumerate(("pets", "birds"))
    }


@pytest.fixture
def start(folders):
    """Starts a server; gives (process, port)."""
    started = []

    def start(*flags):
        process = subprocess.Popen(
            [
                *(sys.executable, "launch.py", "--mode", "serve", "--port", "0"),
                *("--max_batch", "16", "--workdir", str(folders["pets"].parent)),
                *flags,
            ],
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        for line in process.stderr:
            found = re.search(r"http://127.0.0.1:(\d+)", line)
            if found:
                return process, int(found[1])
        raise AssertionError(f"it ended with {process.wait()}")

    yield start
    for process in started:
        process.kill()
        process.communicate()


def send(port, body, path=INFER):
    """A connection on which a request has been sent whole."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", path, body)
    return connection


def receive(connection):
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, json.loads(content)


def gauge(port, name):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    return float(re.search(rf"^{name} (\S+)$", text, re.MULTILINE)[1])


def test_clients_at_once_then_the_end(start, folders):
    """200 requests at once beside two bad clients; SIGTERM while others wait."""
    process, port = start("--window", "300")
    half = socket.create_connection(("127.0.0.1", port))
    start_of_one = (
        b"POST /v2/models/pets/infer HTTP/1.1\r\nContent-Length: 900\r\n\r\n{"
    )
    half.sendall(start_of_one)
    broken = socket.create_connection(("127.0.0.1", port))
    broken.sendall(
        b"POST /v2/models/pets/infer HTTP/1.1\r\nContent-Length: 900\r\n\r\n{"
    )
    broken.close()  # the first stays, and sends nothing more

    images = [picture(seed) for seed in range(20)]
    bodies = [asking(encoded(image)) for image in images]
    wanted = {
        name: vpt_jax.load(folder).predict(images) for name, folder in folders.items()
    }

    def one(n):
        name = ("pets", "birds")[n % 2]
        path = f"/v2/models/{name}/infer"
        status, content = receive(send(port, bodies[n % 20], path))
        assert status == 200
        return np.abs(content["outputs"][0]["data"] - wanted[name][n % 20]).max()

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        assert max(pool.map(one, range(200))) < 1e-5
    assert gauge(port, "vpt_batch_images_count") < 200  # they shared batches

    waiting = [send(port, bodies[n]) for n in range(10)]
    while gauge(port, "vpt_images_in_flight") < 10:
        pass
    process.send_signal(signal.SIGTERM)
    for n, connection in enumerate(waiting):
        status, content = receive(connection)
        assert status == 200
        found = content["outputs"][0]["data"]
        np.testing.assert_allclose(found, wanted["pets"][n], atol=1e-5)
    half.close()
    process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGTERM)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@pytest.mark.slow
def test_no_request_is_lost_while_tasks_come_and_go(start, folders):
    """10,000 requests during 100 loads and unloads."""
    root = str(folders["pets"].parent)
    _, port = start("--repository", root, "--window", "1")
    images = [picture(seed) for seed in range(20)]
    bodies = [asking(encoded(image)) for image in images]
    wanted = vpt_jax.load(folders["pets"]).predict(images)
    done = []

    def client(first):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for n in range(first, 10_000, 16):
            connection.request("POST", INFER, bodies[n % 20])
            response = connection.getresponse()
            content = json.loads(response.read())
            assert response.status == 200, content
            found = content["outputs"][0]["data"]
            np.testing.assert_allclose(found, wanted[n % 20], atol=1e-5)
            done.append(n)
        connection.close()

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        clients = [pool.submit(client, first) for first in range(16)]
        changes = 0
        while changes < 200 or not all(one.done() for one in clients):
            end = ("unload", "load")[changes % 2]
            path = f"/v2/repository/models/birds/{end}"
            assert receive(send(port, b"", path))[0] == 200
            if end == "load":  # what is loaded anew takes the other's place
                assert receive(send(port, b"", path.replace("birds", "pets")))[0] == 200
            changes += 1
        for one in clients:
            one.result()
    assert sorted(done) == list(range(10_000))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workdir", "nowhere"], "nowhere holds no manifest.json, at no depth"),
        ([], "--mode serve needs --workdir"),
        (["--workdir", ".", "--max_batch", "3"], "max_batch 3 must be a power of two"),
        (["--workdir", ".", "--repository", "no"], "--repository no is no folder"),
        (["--workdir", ".", "--host", "no.such.host"], "cannot listen at no.such.host"),
        (
            ["--workdir", ".", "--port", "70000"],
            "an integer in the range [0, 65535]",
        ),
        (["--workdir", ".", "--workdir", "."], "two of the --workdir hold a 'birds'"),
    ],
)
def test_a_server_that_cannot_start_says_why(
    command, folders, monkeypatch, flags, message
):
    root = folders["pets"].parent
    flags = [str(root) if flag == "." else flag for flag in flags]
    monkeypatch.setattr(vpt_jax.Bank, "compile", lambda self: None)
    code, _, error = command("--mode=serve", *flags)
    assert code == 2
    assert message in error
