"""From the address of a file to a file on this machine.

A local path is used where it lies. A public address (`https://`, `gs://` for a public
Google Cloud bucket, `hf://` for a repository of the Hugging Face Hub) is downloaded,
and what lies in the user's own buckets (`gs://`, `s3://`) copied, once into the user's
cache directory; the environment variable `VPT_JAX_CACHE` names another one,
`HF_ENDPOINT` a mirror of the Hub. A download appears under its final name only when it
is complete and, where the hash is known, verified.
"""

import hashlib
import os
import pathlib
import sys
import urllib.parse

import pooch
import requests

from vpt_jax.errors import UserError
from vpt_jax.storage import cache, paths

BY_HAND = "download it by hand and pass config.backbone.checkpoint=PATH"
HUB, HUB_FILE = "https://huggingface.co", "model.safetensors"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
CHUNK_BYTES = 2**20  # pooch's default, 1 KiB, flushes 400,000 times for ViT-B/16


def fetch(source: str, sha256: str | None = None) -> pathlib.Path:
    """Returns a local path with the content of `source`, downloading it if needed.

    Args:
        source: a local path, `https://...`, `gs://bucket/object` (with `.[gcs]` also
            of buckets that are not public), `s3://bucket/object` or
            `hf://owner/name[@revision][/file]` (public repositories; the file is
            model.safetensors unless named). `http://` is accepted for this machine's
            own addresses only.
        sha256: the expected hash in hexadecimal. A cached file that differs is
            downloaded again. None skips the check: the hash of a fresh download is
            then printed, with the word that nothing was compared, so that it can be
            recorded.

    Raises:
        UserError: the file is missing, cannot be downloaded or has another hash.
    """
    if is_local(source):
        return _local(source, sha256)
    kind = paths.scheme(source)
    if kind == "s3":
        return cache.at_hand(source)
    address = _web_address(source)
    # A file of the zoo is public; another may be the user's own.
    if kind == "gs" and not sha256 and paths.can_read(kind):
        return cache.at_hand(source)
    return _download(source, address, sha256)


def kept_as(source: str) -> pathlib.Path:
    """Where a download of that address is kept."""
    return cache.cache_dir() / _cache_name(_web_address(source))


def is_local(source: str) -> bool:
    """Whether `fetch` takes it for a path and asks no other machine."""
    return "://" not in source


def sha256_of(path: str | os.PathLike) -> str:
    """SHA-256 of a file in hexadecimal, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _local(source: str, sha256: str | None) -> pathlib.Path:
    path = pathlib.Path(source).expanduser()
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise UserError(
            f"{source!r} {problem}; pass config.backbone.checkpoint=PATH with the"
            " path of a checkpoint file, or an https://, gs:// or hf:// address"
        )
    try:
        found = sha256_of(path) if sha256 else None
    except OSError as error:
        raise UserError(
            f"cannot read {source!r} ({error.strerror}); check its permissions"
        ) from error
    if sha256 and found != sha256.lower():
        raise UserError(
            f"{source!r} has sha256 {found}, expected {sha256.lower()}; it is damaged"
            " or another file: replace it"
        )
    return path


def _web_address(source: str) -> str:
    """The http(s) address that serves `source`."""
    try:
        parts = urllib.parse.urlsplit(source)
        host = parts.hostname
    except ValueError as error:
        raise UserError(f"{source!r} is not an address ({error}); {BY_HAND}") from error
    if parts.scheme == "https" or (parts.scheme == "http" and host in LOOPBACK):
        return source
    if parts.scheme == "http":
        raise UserError(f"{source!r} is not encrypted; use https://, or {BY_HAND}")
    if parts.scheme == "hf":
        return _web_address(_hub_address(source))
    if parts.scheme != "gs":
        raise UserError(
            f"{source!r}: unknown scheme {parts.scheme!r}; allowed are a local path,"
            f" https://, gs://, s3:// and hf://, or {BY_HAND}"
        )
    bucket, _, name = source.partition("://")[2].partition("/")
    if not bucket or not name:
        raise UserError(f"{source!r} is not of the form gs://bucket/object")
    return f"https://storage.googleapis.com/{bucket}/{urllib.parse.quote(name)}"


def _hub_address(source: str) -> str:
    """Where the Hugging Face Hub serves hf://owner/name[@revision][/file]."""
    owner, _, rest = source.partition("://")[2].partition("/")
    name, _, file = rest.partition("/")
    name, _, revision = name.partition("@")
    if not owner or not name:
        raise UserError(f"{source!r} is not of the form hf://owner/name")
    endpoint = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    revision = urllib.parse.quote(revision or "main", safe="")
    path = f"{owner}/{name}/resolve/{revision}/{file or HUB_FILE}"
    return f"{endpoint}/{urllib.parse.quote(path, safe='/%')}"


def _download(source: str, url: str, sha256: str | None) -> pathlib.Path:
    target = cache.cache_dir() / _cache_name(url)
    is_new = not target.exists()
    pooch.get_logger().setLevel("WARNING")  # its hint addresses callers of pooch
    if is_new:
        print(f"Downloading {url} to {target}", file=sys.stderr)
    opened: list[requests.Response] = []

    def answered(response: requests.Response, **_) -> None:
        opened.append(response)
        if response.is_redirect:  # refused where `url` itself would be
            _web_address(
                urllib.parse.urljoin(response.url, response.headers["location"])
            )

    downloader = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(),
        chunk_size=CHUNK_BYTES,
        hooks={"response": answered},
    )
    try:
        pooch.retrieve(
            url,
            known_hash=f"sha256:{sha256}" if sha256 else None,
            fname=target.name,
            path=target.parent,
            # pooch's protocol names the arguments of its own class otherwise
            downloader=downloader,  # pyright: ignore[reportArgumentType]
        )
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"cannot download {source}: {_reason(error)}") from error
    finally:
        for response in opened:  # pooch leaves a transfer that failed open
            response.close()
    if is_new and not sha256:
        found = f"sha256 of {target.name}: {sha256_of(target)}"
        print(f"{found} (no hash to compare it with was given)", file=sys.stderr)
    return target


def _cache_name(url: str) -> str:
    """A file name that differs between addresses and still shows the file's name."""
    name = urllib.parse.urlsplit(url).path.rpartition("/")[2]
    return f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name[-100:]}"


def _reason(error: Exception) -> str:
    """One line: what went wrong and what to do about it."""
    detail = " ".join(str(error).split())
    if isinstance(error, requests.HTTPError) and error.response is not None:
        answer = f"{error.response.status_code} {error.response.reason}"
        return f"the server answered {answer}; check the address, or {BY_HAND}"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return f"the transfer broke off; try again, or {BY_HAND}"
    if isinstance(error, requests.ConnectionError | requests.Timeout):
        return f"no connection; is there a network? If not, {BY_HAND} ({detail})"
    if isinstance(error, requests.RequestException):
        return f"{detail}; {BY_HAND}"
    if isinstance(error, OSError):
        return f"{detail}; set VPT_JAX_CACHE to a folder with space that you can write"
    return f"wrong hash, nothing was kept; try again, or {BY_HAND} ({detail})"
