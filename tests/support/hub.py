"""A stand-in for the Hugging Face hub on this machine's loopback: as much of it as `snapshot_download` asks for."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

#: Of every model, at every revision.
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Served:
    """files: by path, as the hub lists and sends them. etag, commit: what its headers say instead of the truth.
    status: of every answer. body: instead of every JSON answer. cut: bytes of a file that are sent."""

    files: Mapping[str, bytes]
    etag: str | None = None
    commit: str = COMMIT
    status: int = 200
    body: str | None = None
    cut: int | None = None
    asked: list[str] = field(default_factory=list)


@contextmanager
def hub(models: Mapping[str, Served]) -> Iterator[str]:
    """The address of a hub of `models`, by id; `asked` of each grows by the files that are fetched."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            api = path.startswith("/api/models/")
            owner, name, *rest = path.removeprefix("/api/models/").strip("/").split("/")
            served = models.get(f"{owner}/{name}")
            if served is None or served.status != 200:
                return self._send(served.status if served else 404, b"{}", {"X-Error-Message": "no\x1b[31m such"})
            if api:
                return self._send(200, self._answer(served, rest, f"{owner}/{name}").encode(), {})
            file = "/".join(rest[2:])
            if file not in served.files:
                return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            if self.command == "GET":
                served.asked.append(file)
            content = served.files[file]
            etag = served.etag or sha1(content, usedforsecurity=False).hexdigest()
            self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": served.commit}, served.cut)

        do_HEAD = do_GET

        def _answer(self, served: Served, rest: list[str], name: str) -> str:
            if served.body is not None:
                return served.body
            entries: list[dict[str, Any]] = [
                {"type": "file", "path": path, "size": len(content), "oid": "0" * 40}
                for path, content in served.files.items()
            ]
            info = {"id": name, "modelId": name, "sha": served.commit, "private": False, "tags": [], "siblings": []}
            return json.dumps(entries if rest[:1] == ["tree"] else info)

        def _send(self, status: int, content: bytes, headers: dict[str, str], cut: int | None = None) -> None:
            self.send_response(status)
            for key, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content[:cut])
            self.close_connection = cut is not None

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
