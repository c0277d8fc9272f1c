"""What HTTP costs over the bank itself, with and without a window.

python -m benchmarks.serve [--backbone vit_ti16] [--requests 400] [--clients 16]

One task (VPT-Deep, P = 10, tensors drawn at random), encoded JPEG images of 224 px sent
raw in the Open Inference Protocol's binary form. Each client keeps a connection and
sends one request after the other. `one` sends single images, without a window and with
one of 2 ms; `batch` sends requests of 16 images from one client, and the bank alone
does the same work (decoding in four threads as the server has them, resizing, the
program) in this process. Server and clients share this machine's cores. Printed are
medians of p50, p95 and images/s over `--repeats`, taken in turn.
"""

import argparse
import contextlib
import http.client
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.bank import write_export
from vpt_jax import Bank
from vpt_jax.data.images import decode_image
from vpt_jax.serving.app import THREADS
from vpt_jax.serving.protocol import HEADER

BATCH = 16


def main() -> None:
    """Parse the arguments, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="vit_ti16")
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    checkpoint = None if args.backbone == "vit_nano" else "random"
    with tempfile.TemporaryDirectory() as root, contextlib.ExitStack() as stack:
        write_export(Path(root), args.backbone, checkpoint, 0)
        ports = {
            window: stack.enter_context(_server(root, window)) for window in (0, 2)
        }
        bank = Bank(args.backbone, checkpoint, max_batch=BATCH)
        bank.load("0", Path(root) / "0")
        bank.compile()
        ways: dict[str, Callable[[], dict]] = {
            f"one, window {window} ms": lambda port=port: _clients(port, 1, args)
            for window, port in ports.items()
        }
        ways["batch over HTTP"] = lambda: _clients(ports[0], BATCH, args)
        ways["batch in the bank"] = lambda: _alone(bank, args)
        found: dict[str, list[dict]] = {name: [] for name in ways}
        for _ in range(args.repeats):
            for name, way in ways.items():
                found[name].append(way())
    rows = {
        name: {key: statistics.median(row[key] for row in some) for key in some[0]}
        for name, some in found.items()
    }
    for name, row in rows.items():
        print(json.dumps({"how": name, **{k: round(v, 2) for k, v in row.items()}}))
    rates = [rows[name]["images_per_second"] for name in list(ways)[-2:]]
    print(json.dumps({"http_over_bank": round(rates[1] / rates[0], 3)}))


@contextlib.contextmanager
def _server(root: str, window: int) -> Iterator[int]:
    command = [sys.executable, "launch.py", "--mode", "serve", "--port", "0"]
    command += ["--workdir", root, "--window", str(window), "--max_batch", str(BATCH)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "http://" in line)
        yield int(line.rsplit(":", 1)[1])
        process.terminate()


def _jpegs() -> list[bytes]:
    rng, found = np.random.default_rng(0), []
    for _ in range(BATCH):
        small = Image.fromarray(rng.integers(0, 256, (14, 14, 3), dtype=np.uint8))
        file = io.BytesIO()
        small.resize((224, 224)).save(file, "JPEG", quality=90)
        found.append(file.getvalue())
    return found


def _request(images: list[bytes]) -> tuple[bytes, dict[str, str]]:
    raw = b"".join(len(image).to_bytes(4, "little") + image for image in images)
    about = {"name": "image", "datatype": "BYTES", "shape": [len(images)]}
    about["parameters"] = {"binary_data_size": len(raw)}
    text = json.dumps({"inputs": [about]}).encode()
    return text + raw, {HEADER: str(len(text))}


def _clients(port: int, count: int, args: argparse.Namespace) -> dict:
    """Requests of so many images each."""
    body, headers = _request(_jpegs()[:count])
    clients = args.clients if count == 1 else 1
    each = args.requests // count // clients

    def one(_) -> list[float]:
        took, connection = [], http.client.HTTPConnection("127.0.0.1", port)
        for _ in range(each):
            started = time.perf_counter()
            connection.request("POST", "/v2/models/0/infer", body, headers)
            response = connection.getresponse()
            response.read()
            assert response.status == 200
            took.append(time.perf_counter() - started)
        connection.close()
        return took

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        took = sorted(sum(pool.map(one, range(clients)), []))
    return _row(took, count, time.perf_counter() - started)


def _alone(bank: Bank, args: argparse.Namespace) -> dict:
    """The same work without HTTP: batch after batch."""
    task, encoded, took = bank.task("0"), _jpegs(), []
    with ThreadPoolExecutor(THREADS) as pool:
        begin = time.perf_counter()
        for _ in range(args.requests // BATCH):
            started = time.perf_counter()
            views = pool.map(lambda image: task.view(decode_image(image)), encoded)
            bank.run([(task, view) for view in views])
            took.append(time.perf_counter() - started)
        return _row(sorted(took), BATCH, time.perf_counter() - begin)


def _row(took: list[float], count: int, seconds: float) -> dict:
    return {
        "p50_ms": 1000 * took[len(took) // 2],
        "p95_ms": 1000 * took[int(0.95 * len(took))],
        "images_per_second": count * len(took) / seconds,
    }


if __name__ == "__main__":
    main()
