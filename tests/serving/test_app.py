"""The routes of a server: what is answered, and how each mistake is."""

import asyncio
import base64
import io
import json
import re
import struct
import zlib

import numpy as np
import pytest
import scenes_folder
from PIL import Image
from serving import exports

import vpt_jax
from vpt_jax.config import base
from vpt_jax.serving import app as application
from vpt_jax.serving import protocol


@pytest.fixture(scope="module")
def folders(new_tiny, tmp_path_factory):
    """`pets` and `birds`, of one shelf."""
    root = tmp_path_factory.mktemp("repository")
    return {
        name: exports.write(root / name, new_tiny(), exports.names(name, classes), seed)
        for seed, (name, classes) in enumerate({"pets": 3, "birds": 12}.items())
    }


@pytest.fixture
def bank(new_tiny, checkpoint, folders):
    bank = vpt_jax.Bank("vit_test", str(checkpoint), max_batch=2)
    bank.load("pets", folders["pets"])
    return bank


@pytest.fixture
def app(bank, folders):
    return application.make(bank, 0.0, repository=folders["pets"].parent)


async def _ask(app, method, path, body=b"", headers=None, receive=None):
    messages = [{"type": "http.request", "body": body}]
    sent = []

    async def give():
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def take(message):
        sent.append(message)

    pairs = {"content-length": str(len(body)), **(headers or {})}.items()
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(k.encode(), v.encode()) for k, v in pairs],
    }
    await app(scope, receive or give, take)
    start, *rest = sent
    found = {k.decode(): v.decode() for k, v in start["headers"]}
    return start["status"], found, b"".join(part["body"] for part in rest)


def ask(app, method, path, body=b"", headers=None, receive=None):
    """(status, headers, body) of one request, without a network."""
    return asyncio.run(_ask(app, method, path, body, headers, receive))


def encoded(image, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)


def asking(*images):
    text = [base64.b64encode(image).decode() for image in images]
    about = {"name": "image", "datatype": "BYTES", "shape": [len(text)], "data": text}
    return json.dumps({"inputs": [about]}).encode()


def test_a_task_answers_by_the_protocol(app, folders):
    images = [picture(seed) for seed in range(3)]
    status, _, body = ask(
        app, "POST", "/v2/models/pets/infer", asking(*map(encoded, images))
    )
    assert status == 200
    probabilities, classes = json.loads(body)["outputs"]
    wanted = vpt_jax.load(folders["pets"]).predict(images)
    found = np.reshape(probabilities["data"], probabilities["shape"])
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert classes["data"] == [f"pets_{k}" for k in wanted.argmax(1)]
    status, _, body = ask(app, "GET", "/v2/models/pets")
    about = json.loads(body)
    assert about["outputs"][0]["shape"] == [-1, 3]
    assert about["parameters"]["method"] == "vpt-deep"
    assert about["parameters"]["tuned_bytes"] == 4 * (2 * 2 * 16 + 16 * 3 + 3)
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/pets/ready"):
        status, _, body = ask(app, "GET", path)
        assert status == 200
        assert json.loads(body)[path.rpartition("/")[2]] is True
    assert json.loads(ask(app, "GET", "/v2")[2])["version"] == vpt_jax.__version__


def bomb():
    """A PNG of 10 GB of pixels in a kilobyte."""

    def chunk(kind, content):
        whole = kind + content
        return (
            struct.pack(">I", len(content))
            + whole
            + struct.pack(">I", zlib.crc32(whole))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1_000_000)))
    return b"\x89PNG\r\n\x1a\n" + head + pixels + chunk(b"IEND", b"")


INFER = "/v2/models/pets/infer"
MISTAKES = {  # method, path, body, status, what is said
    "no task": ("POST", "/v2/models/cats/infer", b"", 404, "'cats'.*there are: pets"),
    "no version": ("GET", "/v2/models/pets/versions/2", b"", 404, ""),
    "too long": ("POST", INFER, None, 413, "32000001 bytes; at most 32000000"),
    "bomb": ("POST", INFER, asking(bomb()), 413, "image 0: .*decompression bomb"),
    "no image": ("POST", INFER, asking(b"<svg/>"), 415, "image 0 cannot be read as"),
    "half": ("POST", INFER, asking(encoded(picture())[:90]), 415, "image 0 cannot be"),
    "not JSON": ("POST", INFER, b"{", 422, "not JSON"),
    "wrong method": ("GET", INFER, b"", 405, ""),
    "no example": ("GET", "/api/examples/pets/99", b"", 404, "no example 99"),
    "no page": ("GET", "/page.py", b"", 404, ""),
    "a page's image": ("POST", "/api/classify", b"x", 415, "the image cannot be read"),
    "outside": ("POST", "/v2/repository/models/..%2Fx/load", b"", 404, ""),
    "unknown": ("POST", "/v2/repository/models/x/load", b"", 404, "birds, pets"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_said(app, name):
    method, path, body, status, message = MISTAKES[name]
    headers = {"content-length": "32000001"} if body is None else {}
    found, _, answer = ask(app, method, path, body or b"", headers)
    assert found == status
    if message:
        assert re.search(message, json.loads(answer)["error"])


def test_what_is_too_much_at_once_is_refused_with_a_time(bank):
    app = application.make(bank, 0.0, room=1)
    body = asking(*[encoded(picture())] * 2)
    status, headers, answer = ask(app, "POST", INFER, body)
    assert (status, headers["retry-after"]) == (503, "1")
    assert "too busy: 0 of 1 images" in json.loads(answer)["error"]
    assert ask(app, "POST", INFER, asking(encoded(picture())))[0] == 200


def test_who_sends_too_slowly_is_not_waited_for(app, monkeypatch):
    monkeypatch.setattr(application, "READ_SECONDS", 0.01)

    async def never():
        await asyncio.Event().wait()

    status, _, answer = ask(
        app, "POST", INFER, headers={"content-length": "5"}, receive=never
    )
    assert status == 408
    assert "did not arrive within 0.01 s" in json.loads(answer)["error"]


def test_a_body_of_unknown_length_ends_somewhere(app, monkeypatch):
    monkeypatch.setattr(application, "MAX_BYTES", 10)

    async def endless():
        return {"type": "http.request", "body": b"1234567", "more_body": True}

    headers = {"content-length": "", "transfer-encoding": "chunked"}
    status, _, _ = ask(app, "POST", INFER, headers=headers, receive=endless)
    assert status == 413


def test_an_upload_that_breaks_off_leaves_all_as_it_was(app):
    async def gone():
        return {"type": "http.disconnect"}

    status, _, _ = ask(
        app, "POST", INFER, headers={"content-length": "9"}, receive=gone
    )
    assert status == 499
    assert ask(app, "POST", INFER, asking(encoded(picture())))[0] == 200
    text = ask(app, "GET", "/metrics")[2].decode()
    assert 'vpt_requests_total{status="499",task="pets"} 1.0' in text
    assert "vpt_images_in_flight 0.0" in text


def test_tasks_come_and_go_by_request(app, bank, folders):
    index = json.loads(ask(app, "POST", "/v2/repository/index")[2])
    assert [(row["name"], row["state"]) for row in index] == [
        ("birds", "UNAVAILABLE"),
        ("pets", "READY"),
    ]
    assert ask(app, "POST", "/v2/repository/models/birds/load")[0] == 200
    image = picture()
    status, _, body = ask(app, "POST", "/v2/models/birds/infer", asking(encoded(image)))
    [probabilities, _] = json.loads(body)["outputs"]
    [wanted] = vpt_jax.load(folders["birds"]).predict([image])
    np.testing.assert_allclose(probabilities["data"], wanted, atol=1e-5)
    assert ask(app, "POST", "/v2/repository/models/birds/unload")[0] == 200
    assert ask(app, "GET", "/v2/models/birds")[0] == 404
    assert list(bank.tasks) == ["pets"]
    closed = application.make(bank)
    for end in ("load", "unload"):
        path = f"/v2/repository/models/pets/{end}"
        assert ask(closed, "POST", path)[0] == 403


def test_an_export_that_cannot_be_used_is_not_loaded(app, bank, folders, tmp_path):
    bad = folders["pets"].parent / "bad"
    bad.mkdir()
    (bad / "manifest.json").write_text((folders["pets"] / "manifest.json").read_text())
    (bad / "tuned.safetensors").write_bytes(b"no tensors")
    status, _, answer = ask(app, "POST", "/v2/repository/models/bad/load")
    assert (status, list(bank.tasks)) == (422, ["pets"])
    assert "cannot be read" in json.loads(answer)["error"]


def test_what_the_page_asks_for(app, bank, folders):
    bank.load("birds", folders["birds"])
    status, headers, content = ask(app, "GET", "/")
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in headers["content-security-policy"]
    assert b"http" not in content.replace(b"<!doctype html>", b"")  # nothing from afar
    image = picture()
    status, _, body = ask(app, "POST", "/api/classify", encoded(image, "JPEG"))
    found = json.loads(body)
    assert {name: len(rows) for name, rows in found.items()} == {"pets": 3, "birds": 5}
    assert found["birds"][0]["probability"] >= found["birds"][1]["probability"]
    status, _, body = ask(app, "POST", "/api/attention/pets", encoded(image))
    looks = json.loads(body)
    assert len(looks["plain"]) == len(looks["tuned"]) == 4
    assert looks["plain"] != looks["tuned"]


def test_the_examples_are_the_task_s_own(app, bank, folders):
    bank.load("birds", folders["birds"])
    labels = json.loads(ask(app, "GET", "/api/examples/birds")[2])["labels"]
    assert len(labels) == 24
    assert set(labels) <= set(bank.task("birds").classes)
    status, _, body = ask(app, "GET", "/api/examples/birds/3")
    assert status == 200
    with Image.open(io.BytesIO(body)) as image:
        assert image.size == (8, 8)


def test_an_error_of_ours_is_answered(app, monkeypatch, caplog):
    def fails(*_):
        raise ArithmeticError("deep inside")

    monkeypatch.setattr(protocol, "answer", fails)
    status, _, answer = ask(app, "POST", INFER, asking(encoded(picture())))
    assert status == 500
    assert b"deep inside" not in answer
    assert "deep inside" in caplog.text


# ---- a class for each pixel


@pytest.fixture(scope="module")
def scenes(new_tiny, checkpoint, tmp_path_factory):
    """An export that labels pixels."""
    root = tmp_path_factory.mktemp("scenes")
    config = base(f"masks:{scenes_folder.write(root / 'data')}", "linear", "vit_test")
    config.data.ignored = (scenes_folder.IGNORED,)
    config.backbone.checkpoint, config.head = str(checkpoint), "linear"
    return exports.write(root / "scenes", config, scenes_folder.NAMES, 5)


LABEL = "/v2/models/scenes/infer"


def test_a_task_that_labels_pixels_answers_by_the_protocol(app, bank, scenes):
    bank.load("scenes", scenes)
    about = json.loads(ask(app, "GET", "/v2/models/scenes")[2])
    assert about["outputs"] == [
        {"name": "labels", "datatype": "UINT8", "shape": [-1, -1, -1]}
    ]
    assert about["parameters"]["classes"] == list(scenes_folder.NAMES)
    images = [picture(seed) for seed in range(2)]
    status, _, body = ask(app, "POST", LABEL, asking(*map(encoded, images)))
    [labels] = json.loads(body)["outputs"]
    assert (status, labels["datatype"], labels["shape"]) == (200, "UINT8", [2, 9, 11])
    wanted = np.stack(vpt_jax.load(scenes).predict(images))
    np.testing.assert_array_equal(np.reshape(labels["data"], labels["shape"]), wanted)
    assert len(np.unique(wanted)) > 1
    for seen, error in (
        ((9, 99), "99 x 9; .* at most 8 times as long as wide"),
        ((9, 12), "labels are one tensor: ask for images of one size at once"),
    ):
        other = encoded(np.zeros((*seen, 3), np.uint8))
        status, _, body = ask(app, "POST", LABEL, asking(encoded(images[0]), other))
        assert status in (413, 422) and re.search(error, json.loads(body)["error"])
    tight = application.make(bank, 0.0, room=application.DENSE_ROOM)
    assert ask(tight, "POST", LABEL, asking(*map(encoded, images)))[0] == 503
    assert ask(tight, "POST", LABEL, asking(encoded(images[0])))[0] == 200


def test_the_page_shows_tasks_that_classify(app, bank, scenes):
    bank.load("scenes", scenes)
    assert list(json.loads(ask(app, "GET", "/api/tasks")[2])["tasks"]) == ["pets"]
    image = encoded(picture())
    assert list(json.loads(ask(app, "POST", "/api/classify", image)[2])) == ["pets"]
    for method, path in (("POST", "attention/scenes"), ("GET", "examples/scenes")):
        status, _, body = ask(app, method, f"/api/{path}", image)
        assert status == 404 and b"scenes gives each pixel a class" in body
    bank.unload("pets")
    assert json.loads(ask(app, "GET", "/api/tasks")[2])["tasks"] == {}
    assert ask(app, "POST", "/api/classify", image)[::2] == (200, b"{}")
