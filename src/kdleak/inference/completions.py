"""An OpenAI-compatible completions endpoint (vLLM, SGLang): a client that asks for the log-probs of texts it sends, or
for what the model writes.

A request is `POST <address>/completions` with lists of token ids as `prompt`, `echo` and `logprobs`; an answer holds a
log-prob a token. Where there is none, the model is asked to go on with a prompt, greedily; a chat endpoint
(`<address>/chat/completions`) can be asked for nothing else. The endpoint is not trusted: what it sends is bounded in
time and size, checked, and never printed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from kdleak.core.errors import KdleakError
from kdleak.inference.http_client import HttpClient, Refused

#: Environment variable that holds the endpoint's key: it stands in no option, address, log or error.
KEY = "KDLEAK_API_KEY"
#: A log-prob above 0 by no more than this is the rounding of 0.
_ROUNDING = 1e-3
#: No log-prob is as large; NaN and a number of a thousand digits are no smaller either.
_LARGEST = 1e30
#: Bytes of an answer: for each token that was sent, and beside.
_BYTES_A_TOKEN, _BYTES = 2048, 2**20


@dataclass(frozen=True)
class Address:
    """scheme://host:port/path of an endpoint, and the name of the model there; None: the only one it has."""

    scheme: str
    host: str
    port: int
    path: str
    model: str | None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def parse_address(text: str, option: str) -> Address:
    """`http(s)://host:port/v1`, with `#model` where the endpoint has several. Nothing of what is refused is quoted: it
    may hold a key."""
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except (ValueError, UnicodeError):
        parts, host, port = urlsplit(""), "", None
    if parts.scheme not in ("http", "https") or not host or not (text.isascii() and text.isprintable()) or " " in text:
        raise KdleakError(f"{option}: no address of an endpoint; write http(s)://host:port/v1")
    if parts.username is not None or parts.password is not None or parts.query:
        raise KdleakError(f"{option}: an address holds no user, password or query; a key goes into {KEY}")
    path = parts.path.rstrip("/").removesuffix("/completions")
    return Address(parts.scheme, host, port or {"http": 80, "https": 443}[parts.scheme], path, parts.fragment or None)


class NoLogProbs(KdleakError):
    """The endpoint gives text alone."""


class Endpoint:
    """The model of an endpoint. chat: whether it takes messages alone. rate: requests a second, at most; None: as fast
    as it answers."""

    def __init__(self, address: Address, option: str, rate: float | None = None):
        headers = {"Content-Type": "application/json"} | _authorisation(address, option)
        where = address.scheme, address.host, address.port
        self.address, self.option = address, option
        self.chat = address.path.endswith("/chat")
        self.client = HttpClient(*where, headers, f"{option}: {address}", rate)
        self.model, self.positions = self._model()

    def _model(self) -> tuple[str, int | None]:
        """Name and number of positions (where it says so) of the model that is asked."""
        path = self.address.path.removesuffix("/chat")
        answer = self.client.request("GET", f"{path}/models", None, _BYTES)
        listed = answer.get("data") if isinstance(answer, dict) else None
        listed = listed if isinstance(listed, list) else []
        models = {m["id"]: m for m in listed if isinstance(m, dict) and isinstance(m.get("id"), str)}
        name = self.address.model or (next(iter(models)) if len(models) == 1 else None)
        if name is None or (models and name not in models):
            known = ", ".join(f"'{_short(each)}'" for each in list(models)[:5]) or "none by name"
            raise KdleakError(f"{self.option}: {self.address} has {known}; name one: {self.option} …/v1#NAME")
        positions = models.get(name, {}).get("max_model_len")
        return name, positions if isinstance(positions, int) and positions > 0 else None

    def log_probs(self, texts: Sequence[Sequence[int]]) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """Of each text (token ids), the log-probs (n - 1,) of all tokens but its first, and whether the model would
        have taken another token there; None where the endpoint does not say.

        Raises NoLogProbs where it gives none, KdleakError where it gives no answer, or one that is none.
        """
        if self.chat:
            raise self._none()
        sent = sum(map(len, texts))
        body = {"prompt": [list(text) for text in texts], "echo": True, "logprobs": 1, "max_tokens": 1}
        try:
            answer, choices = self._asked(body, len(texts), _BYTES_A_TOKEN * sent)
        except Refused as error:
            raise NoLogProbs(str(error)) from None
        usage = answer.get("usage")
        counted = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        if isinstance(counted, int) and counted != sent:
            raise self._damaged(f"it read {counted} tokens where {sent} were sent, as with a token of its own in front")
        return [self._columns(choice.get("logprobs"), len(text)) for choice, text in zip(choices, texts, strict=True)]

    def written(self, prompts: Sequence[Sequence[Any]], tokens: int) -> list[str]:
        """What the model writes after each of the prompts (token ids; of a chat endpoint, messages), greedily, at most
        so many tokens. Raises KdleakError as `log_probs` does."""
        if self.chat:
            return [self._said({"messages": list(each)}, 1, tokens)[0] for each in prompts]
        return self._said({"prompt": [list(each) for each in prompts]}, len(prompts), tokens)

    def _said(self, body: dict[str, Any], n: int, tokens: int) -> list[str]:
        _, choices = self._asked(body | {"max_tokens": tokens}, n, _BYTES_A_TOKEN * n * tokens)
        messages = [choice.get("message") for choice in choices]
        texts: list[Any] = [
            message.get("content") or "" if isinstance(message, dict) else choice.get("text")
            for choice, message in zip(choices, messages, strict=True)
        ]
        if not all(isinstance(text, str) for text in texts):
            raise self._damaged("a choice without a text")
        return texts

    def _asked(self, body: dict[str, Any], n: int, more: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The answer on a request for n completions, and its choices in the order of the prompts. more: bytes."""
        body = {"model": self.model, **body, "temperature": 0}
        answer = self.client.request("POST", f"{self.address.path}/completions", body, _BYTES + more)
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or len(choices) != n:
            raise self._damaged(f"not one choice for each of {n} texts")
        of_text: dict[int, dict[str, Any]] = {}
        for place, choice in enumerate(choices):
            index = choice.get("index", place) if isinstance(choice, dict) else None
            if not isinstance(index, int) or not 0 <= index < n or index in of_text:
                raise self._damaged("its choices do not say to which text they belong")
            of_text[index] = choice
        return answer, [of_text[i] for i in range(n)]

    def _columns(self, logprobs: Any, n: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Of a choice's `logprobs`, for a text of n tokens; one more may be there, which the model has added."""
        values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
        if not isinstance(values, list) or (len(values) <= 1 < n):
            raise self._none()
        if len(values) not in (n, n + 1):
            raise self._damaged(f"{len(values)} log-probs for a text of {n} tokens")
        of_tokens = values[1:n]
        if not all(type(v) in (int, float) and -_LARGEST < v <= _ROUNDING for v in of_tokens):
            raise self._damaged("a log-prob that is no number of at most 0")
        top = logprobs.get("top_logprobs")
        best = [_highest(each) for each in (top if isinstance(top, list) else [])[1:n]]
        log_probs = np.minimum(np.array(of_tokens, np.float32), 0)
        if len(best) != n - 1 or None in best:
            return log_probs, None
        return log_probs, np.array(best, np.float64) > np.array(of_tokens, np.float64)

    def _none(self) -> NoLogProbs:
        return NoLogProbs(
            f"{self.option}: {self.address} gives no log-probs of a text that it is sent (echo), and from generated "
            "text alone only 'continuation' can run, which this audit leaves out; let it, or write a log-prob file "
            "where the model is (--logprobs)"
        )

    def _damaged(self, why: str) -> KdleakError:
        return KdleakError(
            f"{self.option}: {self.address} gave an answer that is none ({why}); is it such an endpoint?"
        )


def _highest(top: Any) -> float | None:
    """The highest log-prob of a token's alternatives."""
    values = list(top.values()) if isinstance(top, dict) else []
    return max(values) if values and all(type(v) in (int, float) and abs(v) < _LARGEST for v in values) else None


def _authorisation(address: Address, option: str) -> dict[str, str]:
    key = os.environ.get(KEY, "").strip()
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()):
        raise KdleakError(f"{KEY}: it holds characters that no header may; set it again")
    if address.scheme != "https" and not _is_here(address.host):
        raise KdleakError(f"{option}: a key goes over https alone; use https, or unset {KEY}")
    return {"Authorization": f"Bearer {key}"}


def _is_here(host: str) -> bool:
    """Whether `host` is this machine."""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _short(name: str) -> str:
    text = " ".join(name.split())
    return text if len(text) <= 60 else text[:57] + "..."
