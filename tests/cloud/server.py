"""A small Google Cloud Storage on this machine: its JSON API as far as gcsfs and
TensorStore speak it, with preconditions, and with faults on request.

`STORAGE_EMULATOR_HOST` sends gcsfs there, `TENSORSTORE_GCS_HTTP_URL` TensorStore.
"""

import base64
import dataclasses
import hashlib
import itertools
import json
import re
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

OBJECT = re.compile(r"/(?:download/)?storage/v1/b/([^/]+)/o/([^/]+)")
LISTING = re.compile(r"/storage/v1/b/([^/]+)/o")
BUCKET = re.compile(r"/storage/v1/b/([^/]+)(?:/(?:storageLayout|iam.*))?")
UPLOAD = re.compile(r"/(?:resumable/)?upload/storage/v1/b/([^/]+)/o")
REWRITE = re.compile(r"/storage/v1/b/([^/]+)/o/([^/]+)/\w+To/b/([^/]+)/o/([^/]+)")


class Answer(Exception):
    """What a request gets that goes no further."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclasses.dataclass
class Object:
    """Content, and the generation that each write of it raises."""

    content: bytes
    generation: int
    updated: float

    def about(self, bucket: str, name: str) -> dict:
        """As the API describes it."""
        import google_crc32c  # comes with gcsfs

        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.updated))
        stamp += f".{int(self.updated % 1 * 1000):03d}Z"
        crc = google_crc32c.Checksum(self.content).digest()
        return {
            "kind": "storage#object",
            "name": name,
            "bucket": bucket,
            "generation": str(self.generation),
            "metageneration": "1",
            "contentType": "application/octet-stream",
            "size": str(len(self.content)),
            "md5Hash": base64.b64encode(hashlib.md5(self.content).digest()).decode(),
            "crc32c": base64.b64encode(crc).decode(),
            "storageClass": "STANDARD",
            "timeCreated": stamp,
            "updated": stamp,
        }


class Server(ThreadingHTTPServer):
    """Serves buckets from memory.

    Attributes:
        buckets: Objects by name, by the name of the bucket.
        read_only: Names of buckets that refuse what would change them.
        fail_every: The number of requests of which one is answered with 503; 0: none.
        drop_every: The number of requests of which one is done, but its connection is
            closed without an answer; 0: none.
        requests: How many came.
    """

    daemon_threads = True

    def __init__(self, *buckets: str):
        super().__init__(("127.0.0.1", 0), Handler)
        self.buckets: dict[str, dict[str, Object]] = {name: {} for name in buckets}
        self.read_only: set[str] = set()
        self.fail_every = self.drop_every = 0
        self.requests = itertools.count(1)
        self.generations = itertools.count(1)
        self.uploads: dict[str, tuple[str, dict, bytearray]] = {}
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """What sends the libraries here."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
        }

    def handle_error(self, request, client_address) -> None:
        """A client that was killed is no news."""

    # ---- what the API does, under the lock

    def objects(self, bucket: str) -> dict[str, Object]:
        """Of a bucket that is there."""
        if bucket not in self.buckets:
            raise Answer(404, f"The specified bucket does not exist: {bucket}")
        return self.buckets[bucket]

    def found(self, bucket: str, name: str) -> Object:
        """An object that is there."""
        objects = self.objects(bucket)
        if name not in objects:
            raise Answer(404, f"No such object: {bucket}/{name}")
        return objects[name]

    def writable(self, bucket: str) -> dict[str, Object]:
        """The objects of a bucket that may be changed."""
        objects = self.objects(bucket)
        if bucket in self.read_only:
            raise Answer(403, f"no storage.objects.create access to {bucket}")
        return objects

    def check(self, bucket: str, name: str, query: dict[str, str]) -> None:
        """The preconditions."""
        there = self.objects(bucket).get(name)
        generation = there.generation if there else 0
        wanted = query.get("ifGenerationMatch")
        if wanted is not None and int(wanted) != generation:
            raise Answer(412, "conditionNotMet")
        unwanted = query.get("ifGenerationNotMatch")
        if unwanted is not None and int(unwanted) == generation:
            raise Answer(304, "conditionNotMet")

    def write(self, bucket: str, name: str, content: bytes, query: dict) -> dict:
        """A whole object."""
        objects = self.writable(bucket)
        self.check(bucket, name, query)
        written = Object(content, next(self.generations), time.time())
        objects[name] = written
        return written.about(bucket, name)

    def remove(self, bucket: str, name: str, query: dict) -> None:
        """An object."""
        objects = self.writable(bucket)
        self.found(bucket, name)
        self.check(bucket, name, query)
        del objects[name]

    def listing(self, bucket: str, query: dict[str, str]) -> dict:
        """A page of names with a prefix, those behind the delimiter as one."""
        prefix, mark = query.get("prefix", ""), query.get("delimiter", "")
        size = int(query.get("maxResults", 1000))
        start, end = query.get("startOffset", ""), query.get("endOffset")
        after = query.get("pageToken", "")
        names, folders = [], set()
        for name in sorted(self.objects(bucket)):
            if not name.startswith(prefix) or name < start or (end and name >= end):
                continue
            rest = name[len(prefix) :]
            if mark and mark in rest[: -len(mark)] + rest[-len(mark) :]:
                folders.add(prefix + rest.partition(mark)[0] + mark)
                if not (rest == mark and query.get("includeTrailingDelimiter")):
                    continue
            if name > after:
                names.append(name)
        page = names[:size]
        answer = {
            "kind": "storage#objects",
            "items": [self.buckets[bucket][n].about(bucket, n) for n in page],
            "prefixes": [] if after else sorted(folders),
        }
        if len(names) > size:
            answer["nextPageToken"] = page[-1]
        return answer


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for its second packet
    server: Server

    def log_message(self, *_) -> None:
        """Nothing."""

    def do(self) -> None:
        """Any request."""
        size = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        else:
            body = self.rfile.read(size)
        number = next(self.server.requests)
        if self.server.fail_every and number % self.server.fail_every == 0:
            self._send(503, b'{"error": {"code": 503, "message": "try again"}}')
            return
        try:
            with self.server.lock:
                answer = self._answer(self.command, self.path, body)
        except Answer as refusal:
            error = {"code": refusal.status, "message": str(refusal)}
            empty = refusal.status == 304
            answer = refusal.status, b"" if empty else _json({"error": error}), {}
        if self.server.drop_every and number % self.server.drop_every == 0:
            self.close_connection = True
            self.connection.close()
            return
        self._send(*answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do

    def _answer(self, method: str, path: str, body: bytes):
        """(status, content, headers)"""
        server, parts = self.server, urllib.parse.urlsplit(path)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        route, plain = parts.path, urllib.parse.unquote
        if route.startswith("/batch/"):
            return self._batch(body)
        if match := UPLOAD.fullmatch(route):
            return self._upload(match[1], query, body)
        if match := REWRITE.fullmatch(route):
            bucket, name, to, other = map(plain, match.groups())
            content = server.found(bucket, name).content
            about = server.write(to, other, content, query)
            return 200, _json({"done": True, "resource": about} | about), {}
        if match := OBJECT.fullmatch(route):
            bucket, name = map(plain, match.groups())
            if method == "DELETE":
                server.remove(bucket, name, query)
                return 204, b"", {}
            there = server.found(bucket, name)
            server.check(bucket, name, query)
            if query.get("alt") == "media" or route.startswith("/download"):
                return self._media(there)
            return 200, _json(there.about(bucket, name)), {}
        if match := LISTING.fullmatch(route):
            return 200, _json(server.listing(match[1], query)), {}
        if match := BUCKET.fullmatch(route):
            server.objects(match[1])
            about = {"name": match[1], "location": "HERE", "locationType": "region"}
            about |= {"storageClass": "STANDARD", "timeCreated": "2026-01-01T00:00:00Z"}
            return 200, _json(about), {}
        raise Answer(501, f"this server does not know {method} {path}")

    def _media(self, there: Object):
        headers = {
            "x-goog-generation": str(there.generation),
            "ETag": f'"{there.generation}"',
        }
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not wanted or not there.content:
            return 200, there.content, headers
        size = len(there.content)
        first = int(wanted[1]) if wanted[1] else size - int(wanted[2])
        last = int(wanted[2]) if wanted[1] and wanted[2] else size - 1
        last = min(last, size - 1)
        if first > last:
            raise Answer(416, "requested range not satisfiable")
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        return 206, there.content[first : last + 1], headers

    def _upload(self, bucket: str, query: dict[str, str], body: bytes):
        server, kind = self.server, query.get("uploadType")
        if "upload_id" in query:
            return self._part(query["upload_id"], body)
        if kind == "multipart":
            about, content = _parts(self.headers["Content-Type"], body)
            name = query.get("name") or json.loads(about)["name"]
            return 200, _json(server.write(bucket, name, content, query)), {}
        if kind == "resumable":
            name = query.get("name") or json.loads(body)["name"]
            server.writable(bucket)
            server.check(bucket, name, query)
            number = str(next(server.generations))
            server.uploads[number] = bucket, query | {"name": name}, bytearray()
            target = f"{server.url}/upload/storage/v1/b/{bucket}/o?uploadType=resumable"
            return 200, b"", {"Location": f"{target}&upload_id={number}"}
        return 200, _json(server.write(bucket, query["name"], body, query)), {}

    def _part(self, number: str, body: bytes):
        """Of a resumable upload."""
        if number not in self.server.uploads:
            raise Answer(404, "no such upload")
        bucket, query, content = self.server.uploads[number]
        span = re.fullmatch(
            r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", self.headers.get("Content-Range", "")
        )
        if span and span[1] is not None and int(span[1]) <= len(content):
            content[int(span[1]) :] = body
        elif span is None:
            content[:] = body
        if span is None or (span[2] != "*" and int(span[2]) == len(content)):
            about = self.server.write(bucket, query["name"], bytes(content), query)
            return 200, _json(about), {}
        have = {"Range": f"bytes=0-{len(content) - 1}"} if content else {}
        return 308, b"", have

    def _batch(self, body: bytes):
        """Several requests in one; only removals come so."""
        mark = self.headers["Content-Type"].partition("boundary=")[2].strip('"')
        answers = []
        for part in body.split(b"--" + mark.encode()):
            asked = re.search(rb"^(DELETE) (\S+)", part, re.MULTILINE)
            if not asked:
                continue
            try:
                path = urllib.parse.urlsplit(asked[2].decode()).path
                path = path if path.startswith("/storage") else "/storage/v1" + path
                status, *_ = self._answer("DELETE", path, b"")
            except Answer as refusal:
                status = refusal.status
            answers.append(
                f"--{mark}\r\nContent-Type: application/http\r\n\r\n"
                f"HTTP/1.1 {status} \r\nContent-Length: 0\r\n\r\n\r\n"
            )
        content = "".join(answers).encode() + f"--{mark}--".encode()
        return 200, content, {"Content-Type": f"multipart/mixed; boundary={mark}"}

    def _chunks(self) -> bytes:
        content = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _send(self, status: int, content: bytes, headers: dict | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(content)


def _json(content: dict) -> bytes:
    return json.dumps(content).encode()


def _parts(kind: str, body: bytes) -> tuple[bytes, bytes]:
    """Of a multipart upload: what is said of an object, and its content."""
    mark = b"\n--" + kind.partition("boundary=")[2].strip("'\"").encode()
    about, content = (b"\n" + body).split(mark)[1:3]
    return about.split(b"\n\n", 1)[1], content.split(b"\n\n", 1)[1]
