"""Downloads against a server on this machine: what is kept, what is refused."""

import hashlib
import http.server
import io
import socket
import sys
import threading

import pytest

from vpt_jax.checkpoints.fetch import _web_address, fetch, sha256_of
from vpt_jax.errors import UserError
from vpt_jax.storage.cache import cache_dir

CONTENT = bytes(range(256)) * 20
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER_SHA256 = hashlib.sha256(b"other").hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the server's `files` and counts requests."""

    def do_GET(self):
        self.server.requests.append(self.path)
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        if isinstance(body, str):
            self.send_response(302)
            self.send_header("Location", body)
            self.end_headers()
            return
        missing = 100 if "truncated" in self.path else 0
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + missing))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server():
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files = {"/model.npz": CONTENT, "/truncated.npz": CONTENT}
        server.requests = []
        server.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("VPT_JAX_CACHE", str(folder))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")
    return folder


def files_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def error_of(source, sha256=None):
    """The message of the failure, which has to be a single line."""
    with pytest.raises(UserError) as caught:
        fetch(source, sha256)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("sha256", [SHA256, SHA256.upper(), None])
def test_second_fetch_asks_the_server_for_nothing(server, cache, sha256):
    address = f"{server.address}/model.npz"
    path = fetch(address, sha256)
    assert path.read_bytes() == CONTENT
    assert path.parent == cache
    assert fetch(address, sha256) == path
    assert server.requests == ["/model.npz"]
    assert files_in(cache) == [path.name]


def test_fresh_download_without_known_hash_prints_its_hash_once(server, capsys):
    fetch(f"{server.address}/model.npz")
    assert capsys.readouterr().err.count(SHA256) == 1
    fetch(f"{server.address}/model.npz")
    assert capsys.readouterr().err == ""


def test_same_name_at_two_addresses_is_two_files(server):
    server.files["/b/model.npz"] = b"other"
    server.files["/model.npz?version=2"] = b"third"
    paths = [fetch(server.address + name) for name in server.files if "mod" in name]
    assert [path.read_bytes() for path in paths] == [CONTENT, b"other", b"third"]


def test_wrong_hash_keeps_nothing(server, cache):
    message = error_of(f"{server.address}/model.npz", OTHER_SHA256)
    assert SHA256 in message and OTHER_SHA256 in message
    assert "config.backbone.checkpoint=PATH" in message
    assert files_in(cache) == []


def test_damaged_cached_file_is_downloaded_again(server):
    path = fetch(f"{server.address}/model.npz", SHA256)
    path.write_bytes(CONTENT[:-1])
    assert fetch(f"{server.address}/model.npz", SHA256) == path
    assert path.read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_missing_on_the_server(server, cache):
    message = error_of(f"{server.address}/absent.npz")
    assert "404" in message and "config.backbone.checkpoint=PATH" in message
    assert files_in(cache) == []


@pytest.mark.parametrize("sha256", [SHA256, None])
def test_truncated_transfer_keeps_nothing(server, cache, sha256):
    assert "broke off" in error_of(f"{server.address}/truncated.npz", sha256)
    assert files_in(cache) == []


def test_a_redirection_is_held_to_the_same_rules(server, cache):
    """The address 0.0.0.0 reaches this machine, but is not known to be its own."""
    port = server.server_port
    server.files["/here.npz"] = "/model.npz"
    assert fetch(f"{server.address}/here.npz").read_bytes() == CONTENT
    server.files["/there.npz"] = f"http://0.0.0.0:{port}/model.npz"
    message = error_of(f"{server.address}/there.npz")
    assert f"'http://0.0.0.0:{port}/model.npz' is not encrypted" in message
    assert len(files_in(cache)) == 1


def test_no_connection(cache):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening: refuses everyone
        message = error_of(f"http://127.0.0.1:{bound.getsockname()[1]}/model.npz")
    assert "no connection" in message and "config.backbone.checkpoint=PATH" in message
    assert files_in(cache) == []


def test_cache_that_cannot_be_made(server, cache):
    cache.write_text("a file where the folder should be")
    assert "VPT_JAX_CACHE" in error_of(f"{server.address}/model.npz")


def test_cache_defaults_to_the_users_own(monkeypatch):
    monkeypatch.delenv("VPT_JAX_CACHE")
    assert cache_dir().name == "vpt_jax"


class Stderr(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_bar_is_for_terminals(server, monkeypatch, terminal):
    stderr = Stderr(terminal)
    monkeypatch.setattr(sys, "stderr", stderr)
    fetch(f"{server.address}/model.npz")
    assert ("100%" in stderr.getvalue()) == terminal


def test_bucket_address_is_served_over_https():
    address = _web_address("gs://bucket/a+b/ViT-B_16.npz")
    assert address == "https://storage.googleapis.com/bucket/a%2Bb/ViT-B_16.npz"


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("hf://timm/vit", "/timm/vit/resolve/main/model.safetensors"),
        ("hf://timm/vit@v1/sub/a+b.npz", "/timm/vit/resolve/v1/sub/a%2Bb.npz"),
    ],
)
def test_hub_address(server, monkeypatch, source, file):
    monkeypatch.setenv("HF_ENDPOINT", server.address + "/")
    server.files[file] = CONTENT
    path = fetch(source)
    assert path.read_bytes() == CONTENT
    assert fetch(source) == path
    assert server.requests == [file]


def test_hub_without_a_mirror(monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    address = _web_address("hf://timm/vit_tiny.augreg_in21k")
    assert address == (
        "https://huggingface.co/timm/vit_tiny.augreg_in21k/resolve/main/"
        "model.safetensors"
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hf://timm", "hf://owner/name"),
        ("hf:///vit", "hf://owner/name"),
        ("ftp://example.org/model.npz", "unknown scheme 'ftp'"),
        ("http://example.org/model.npz", "use https://"),
        ("http://127.0.0.1.example.org/model.npz", "use https://"),
        ("https://[broken/model.npz", "is not an address"),
        ("https:///model.npz", "config.backbone.checkpoint=PATH"),
        ("gs://bucket", "gs://bucket/object"),
        ("gs:///object", "gs://bucket/object"),
    ],
)
def test_unusable_address(source, expected):
    assert expected in error_of(source)


def test_local_file_is_used_where_it_lies(tmp_path, cache):
    path = tmp_path / "model.npz"
    path.write_bytes(CONTENT)
    assert fetch(str(path)) == path
    assert fetch(str(path), SHA256) == path
    assert not cache.exists()


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model.npz").write_bytes(CONTENT)
    assert fetch("~/model.npz") == tmp_path / "model.npz"


def test_unusable_local_file(tmp_path):
    assert "does not exist" in error_of(str(tmp_path / "absent.npz"))
    assert "is not a file" in error_of(str(tmp_path))
    path = tmp_path / "model.npz"
    path.write_bytes(CONTENT)
    assert SHA256 in error_of(str(path), OTHER_SHA256)
    assert path.exists()


def test_sha256_of(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")  # the example of FIPS 180-2
    assert sha256_of(path) == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
