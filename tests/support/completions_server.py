"""A completions endpoint as vLLM answers it: a real HTTP server on this machine, with a tiny model behind it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from kdleak.models.checkpoints import load_model, load_tokenizer

#: (number of the request for completions, from 1; its body; the answer that the model gives) -> (status, headers, body)
Fault = Callable[[int, dict[str, Any], dict[str, Any]], tuple[int, dict[str, str], bytes] | None]


class Served:
    """url; asked: completions asked for; texts: how many texts were answered; headers: of the last request."""

    def __init__(self, url: str):
        self.url, self.asked, self.texts, self.headers = url, 0, 0, {}


def answer(model: Any, body: dict[str, Any]) -> dict[str, Any]:
    """What a completions endpoint says: the log-probs of each prompt's tokens, and one token more."""
    choices = []
    for index, text in enumerate(body["prompt"]):
        with torch.no_grad():
            log_probs = model(torch.tensor([text])).logits[0].float().log_softmax(-1)
        of_tokens = [None, *(float(log_probs[i, token]) for i, token in enumerate(text[1:]))]
        best = [None, *({"a": float(row.max()), "b": of_tokens[i + 1]} for i, row in enumerate(log_probs[:-1]))]
        last = float(log_probs[-1].max())
        logprobs = {"token_logprobs": [*of_tokens, last], "top_logprobs": [*best, {"a": last}], "tokens": []}
        choices.append({"index": index, "text": "", "logprobs": logprobs, "finish_reason": "length"})
    used = {"prompt_tokens": sum(map(len, body["prompt"])), "completion_tokens": len(choices)}
    return {"object": "text_completion", "choices": choices[::-1], "usage": used}


def text_answer(model: Any, tokenizer: Any, body: dict[str, Any]) -> dict[str, Any]:
    """What a server without `echo` says: the greedy continuation of each prompt, or of the messages, as text."""
    if "messages" in body:
        text = "".join(turn["content"] for turn in body["messages"]) + "\n"
        written = _continued(model, tokenizer, tokenizer(text)["input_ids"], body["max_tokens"])
        return {"choices": [{"index": 0, "message": {"role": "assistant", "content": written}}]}
    texts = [_continued(model, tokenizer, prompt, body["max_tokens"]) for prompt in body["prompt"]]
    return {"choices": [{"index": i, "text": text, "logprobs": None} for i, text in enumerate(texts)][::-1]}


def _continued(model: Any, tokenizer: Any, prompt: list[int], tokens: int) -> str:
    with torch.no_grad():
        made = model.generate(torch.tensor([prompt]), max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    return tokenizer.decode(made[0, len(prompt) :], skip_special_tokens=True)


@contextmanager
def completions_server(
    folder: Path,
    fault: Fault | None = None,
    models: tuple[str, ...] = ("tiny",),
    port: int = 0,
    text_alone: bool = False,
) -> Iterator[Served]:
    """Serve the model of `folder`; fault: what the server does instead where it gives something. port: 0 for any.
    text_alone: it gives no log-probs, and takes chats too."""
    model = load_model(folder, "cpu")
    tokenizer = load_tokenizer(folder)
    said: Served

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            listed = {"data": [{"id": name, "max_model_len": 129} for name in models]}
            self.give(200 if self.path == "/v1/models" else 404, {}, json.dumps(listed).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            said.asked += 1
            said.headers = dict(self.headers)
            if text_alone:
                assert self.path == ("/v1/chat/completions" if "messages" in body else "/v1/completions")
                found = text_answer(model, tokenizer, body)
            else:
                assert self.path == "/v1/completions" and body["echo"] and body["logprobs"] == 1
                found = answer(model, body)
            instead = None if fault is None else fault(said.asked, body, found)
            if instead is None:
                said.texts += len(body.get("prompt", [0]))
            self.give(*(instead or (200, {}, json.dumps(found).encode())))

        def give(self, status: int, headers: dict[str, str], content: bytes) -> None:
            if not status:  # dead
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    said = Served(f"http://127.0.0.1:{server.server_port}/v1")
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield said
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
