"""A server of this machine that answers as the Hugging Face Hub does, as far as needed:
make a repository, commit files, list and fetch them; private ones ask for a token.

Source: the paths and fields that huggingface_hub 2.4 asks for.
"""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_secret"


class Hub(ThreadingHTTPServer):
    """Attributes:
    private: Of each repository.
    commits: (owner/name, commit) -> content by file.
    heads: owner/name -> its newest commit.
    checked: Front matter that was given to be validated.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.private: dict[str, bool] = {}
        self.commits: dict[tuple[str, str], dict[str, bytes]] = {}
        self.heads: dict[str, str] = {}
        self.checked: list[str] = []

    @property
    def address(self) -> str:
        """For HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.private.setdefault(name, asked.get("visibility") == "private")
            return self._json({"url": f"{self.server.address}/{name}", "id": name})
        if self.path == "/api/validate-yaml":
            self.server.checked.append(json.loads(body)["content"])
            return self._json({"errors": [], "warnings": []})
        _, _, _, owner, name, what, _ = self.path.split("/")
        repository = f"{owner}/{name}"
        if what == "preupload":
            files = json.loads(body)["files"]
            answer = [{"path": f["path"], "uploadMode": "regular"} for f in files]
            answer = [one | {"shouldIgnore": False} for one in answer]
            return self._json({"files": answer})
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        before = self.server.heads.get(repository, "")
        files = dict(self.server.commits.get((repository, before), {}))
        for line in lines:
            if line["key"] == "file":
                value = line["value"]
                files[value["path"]] = base64.b64decode(value["content"])
        oid = hashlib.sha1(body).hexdigest()
        self.server.commits[repository, oid] = files
        self.server.heads[repository] = oid
        url = f"{self.server.address}/{repository}/commit/{oid}"
        return self._json({"success": True, "commitUrl": url, "commitOid": oid})

    def do_GET(self):
        parts = self.path.partition("?")[0].strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        parts = parts[2:] if api else parts
        repository, what = "/".join(parts[:2]), parts[2] if len(parts) > 2 else ""
        token = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if self.server.private.get(repository, True) and not token:
            return self._refuse(401, "RepoNotFound")
        commit = parts[3] if len(parts) > 3 else "main"
        commit = self.server.heads[repository] if commit == "main" else commit
        files = self.server.commits.get((repository, commit))
        if files is None:
            return self._refuse(404, "RevisionNotFound")
        if not api:
            return self._file(commit, files["/".join(parts[4:])])
        if what == "tree":
            return self._json(
                [
                    {"type": "file", "path": name, "size": len(content)}
                    | {"oid": hashlib.sha1(content).hexdigest()}
                    for name, content in files.items()
                ]
            )
        siblings = [{"rfilename": name} for name in files]
        return self._json({"id": repository, "sha": commit, "siblings": siblings})

    do_HEAD = do_GET

    def _file(self, commit, content):
        oid = hashlib.sha1(content).hexdigest()
        self._send(200, content, {"X-Repo-Commit": commit, "ETag": f'"{oid}"'})

    def _json(self, content):
        self._send(200, json.dumps(content).encode(), {})

    def _refuse(self, status, code):
        self._send(status, b"", {"X-Error-Code": code})

    def _send(self, status, content, headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format, *args):
        """Say nothing."""


@contextlib.contextmanager
def running() -> Iterator[Hub]:
    """The server, while the block runs."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
