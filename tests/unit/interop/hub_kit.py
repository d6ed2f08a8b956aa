"""A small Hugging Face hub on this machine: what its client asks for when it fetches and uploads a model."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """Files of repositories by name, one commit each."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.requests: list[str] = []
        self.broken: set[tuple[str, str]] = set()
        """Repositories and names of files at which the hub fails."""
        self.address = ""

    def commit(self, repo: str) -> str:
        return hashlib.sha1(repr(sorted(self.files[repo].items())).encode()).hexdigest()


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            hub.requests.append(self.path)
            parts = self.path.strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                repo = "/".join(parts[2:4])
                self.answer(200 if repo in hub.files else 404, {"id": repo, "sha": "0" * 40, "siblings": []})
                return
            repo, name = "/".join(parts[:2]), "/".join(parts[4:])
            if repo not in hub.files:
                self.answer(401, {"error": "Invalid username or password."}, {"X-Error-Code": "RepoNotFound"})
            elif parts[3] not in ("main", hub.commit(repo)):
                self.answer(404, {"error": "no revision"}, {"X-Error-Code": "RevisionNotFound"})
            elif (repo, name) in hub.broken:
                # Of the errors of a server one after which the client does not try again for a minute.
                self.answer(501, {"error": "out of order"})
            elif name not in hub.files[repo]:
                headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": hub.commit(repo)}
                self.answer(404, {"error": "no entry"}, headers)
            else:
                content = hub.files[repo][name]
                etag = f'"{hashlib.sha1(content).hexdigest()}"'
                self.answer(200, content, {"ETag": etag, "X-Repo-Commit": hub.commit(repo)})

        def do_POST(self) -> None:
            hub.requests.append(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Authorization") != "Bearer hf_mine":
                self.answer(401, {"error": "Invalid token"})
            elif self.path == "/api/repos/create":
                asked = json.loads(body)
                owner = asked.get("organization") or "me"
                repo = f"{owner}/{asked['name']}"
                hub.files.setdefault(repo, {})
                self.answer(200, {"url": f"{hub.address}/{repo}", "name": repo, "id": repo})
            elif self.path == "/api/validate-yaml":
                self.answer(200, {"errors": [], "warnings": []})
            elif "/preupload/" in self.path:
                files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
                self.answer(200, {"files": files})
            else:
                repo = "/".join(self.path.split("/")[3:5])
                for line in body.splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        value = entry["value"]
                        hub.files[repo][value["path"]] = base64.b64decode(value["content"])
                sha = hub.commit(repo)
                self.answer(200, {"commitUrl": f"{hub.address}/{repo}/commit/{sha}", "commitOid": sha})

        def answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
            for name, value in {"Content-Length": str(len(data)), "Content-Type": kind, **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
