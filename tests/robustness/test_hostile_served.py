"""Log-prob files and completions endpoints that say what they like (hostile/served.yaml): refused in one line that
quotes nothing of them, or read."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pandas as pd
import pytest

from kdleak.auditing.logprob_file import SCHEMA, read_logprobs
from kdleak.data.records import record_id
from kdleak.data.sides import MEMBER
from kdleak.inference import http_client
from kdleak.inference.completions import Endpoint, parse_address
from tests.support.hostile_inputs import TABLES, Tried, bomb, chosen
from tests.support.private_marks import marked

TABLE = TABLES["served"]
TEXTS = [[1, 2, 3, 4], [5, 6, 7, 8]]


def records() -> pd.DataFrame:
    frame = pd.DataFrame(marked(24, 1))
    texts = frame[["instruction", "context", "response"]]
    ids = [record_id(*each) for each in texts.itertuples(index=False)]
    places = [f"members, row {i}" for i in range(1, 25)]
    return frame.assign(record_id=ids, role=MEMBER, place=places)


def test_logprob_files(tried: Tried, tmp_path):
    table, path = records(), tmp_path / "student.jsonl"
    header = json.dumps({"schema": SCHEMA})
    entries: list[dict[str, Any]] = [*TABLE["files"], *({"line": bomb(each)} for each in TABLE["built"])]
    for entry in chosen(entries):
        rows: list[dict[str, Any]] = [{"id": each, "logprobs": [-1.0, -2.0]} for each in table["record_id"]]
        rows[0] |= dict(entry.get("set", {}))
        rows[0].pop(str(entry.get("gone")), None)
        first, *rest = map(json.dumps, rows)
        first = str(entry.get("line", first)).replace("ID", table["record_id"][0])
        path.write_text("\n".join([entry.get("header", header), first, *rest]))
        tried(str(entry)[:200], lambda: read_logprobs(path, "--logprobs", table, None).statistics.log_prob.sum())
    tried.done(tmp_path)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(http_client, "TRIES", 2)
    monkeypatch.setattr(http_client, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(http_client, "TIMEOUT", 3.0)
    monkeypatch.delenv("KDLEAK_API_KEY", raising=False)


def test_endpoints(tried: Tried, impatient):
    with serving() as (address, entries):
        for entry in chosen(TABLE["answers"]):
            entries[:] = [entry]

            def ask() -> None:
                endpoint = Endpoint(parse_address(address, "--endpoint student"), "--endpoint student")
                endpoint.log_probs(TEXTS)
                endpoint.client.close()

            tried(str(entry)[:200], ask)
    for text in chosen(TABLE["addresses"]):
        tried(text, lambda text=text: parse_address(text, "--endpoint student"), refused=True)
    tried.done()


@contextmanager
def serving() -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """An endpoint's address, and the list whose one entry says how it answers."""
    entries: list[Mapping[str, Any]] = [{}]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            sound = {"data": [{"id": "m", "max_model_len": 64}]}
            self.give("models", entries[0].get("models", sound))

        def do_POST(self) -> None:
            entry, sent = entries[0], json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"]
            known = [None, -1.0, -1.0, -1.0]
            top = [None, {"a": -1.0}, {"a": -1.0}, {"a": -1.0}]
            choices = [
                {"index": i, "logprobs": {"token_logprobs": known, "top_logprobs": top}} for i in range(len(sent))
            ]
            choices[0]["logprobs"] = choices[0]["logprobs"] | entry.get("logprobs", {})  # type: ignore[operator]
            choices[0] |= entry.get("choice", {})
            self.give("completions", {"choices": choices, "usage": {"prompt_tokens": 8}, **entry.get("answer", {})})

        def give(self, at: str, answer: object) -> None:
            entry = entries[0] if entries[0].get("at") == at else {}
            if "raw" in entry:
                self.wfile.write(entry["raw"].encode())
                self.close_connection = True
                return
            text = bomb(dict(entry)) if "repeat" in entry else entry.get("body", json.dumps(answer))
            self.send_response(entry.get("status", 200))
            for name, value in {"Content-Length": str(len(text)), **entry.get("headers", {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())
            self.close_connection = "headers" in entry

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # the client has had enough of it
                self.close_connection = True

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", entries
    finally:
        server.shutdown()
        server.server_close()
