"""An OpenAI-compatible completions endpoint (vLLM, SGLang): a client that asks for the log-probs of texts it sends.

A request is `POST <address>/completions` with lists of token ids as `prompt`, `echo` and `logprobs`; an answer holds a
log-prob a token. The endpoint is not trusted: what it sends is bounded in time and size, checked, and never printed.
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
from kdleak.inference.http_client import HttpClient

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


class Endpoint:
    """The model of an endpoint. rate: requests a second, at most; None: as fast as it answers."""

    def __init__(self, address: Address, option: str, rate: float | None = None):
        headers = {"Content-Type": "application/json"} | _authorisation(address, option)
        where = address.scheme, address.host, address.port
        self.address, self.option = address, option
        self.client = HttpClient(*where, headers, f"{option}: {address}", rate)
        self.model, self.positions = self._model()

    def _model(self) -> tuple[str, int | None]:
        """Name and number of positions (where it says so) of the model that is asked."""
        answer = self.client.request("GET", f"{self.address.path}/models", None, _BYTES)
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

        Raises KdleakError where it gives no answer, or one that is none.
        """
        sent = sum(map(len, texts))
        body = {"model": self.model, "prompt": [list(text) for text in texts]}
        body |= {"echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
        answer = self.client.request("POST", f"{self.address.path}/completions", body, _BYTES + _BYTES_A_TOKEN * sent)
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or len(choices) != len(texts):
            raise self._damaged(f"not one choice for each of {len(texts)} texts")
        usage = answer.get("usage")
        counted = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        if isinstance(counted, int) and counted != sent:
            raise self._damaged(f"it read {counted} tokens where {sent} were sent, as with a token of its own in front")
        of_text: dict[int, tuple[np.ndarray, np.ndarray | None]] = {}
        for place, choice in enumerate(choices):
            index = choice.get("index", place) if isinstance(choice, dict) else None
            if not isinstance(index, int) or not 0 <= index < len(texts) or index in of_text:
                raise self._damaged("its choices do not say to which text they belong")
            of_text[index] = self._columns(choice.get("logprobs"), len(texts[index]))
        return [of_text[i] for i in range(len(texts))]

    def _columns(self, logprobs: Any, n: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Of a choice's `logprobs`, for a text of n tokens; one more may be there, which the model has added."""
        values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
        if not isinstance(values, list) or (len(values) <= 1 < n):
            raise KdleakError(
                f"{self.option}: {self.address} gives no log-probs of a text that it is sent (echo), and from "
                "generated text alone no attack of this audit can run; write a log-prob file where it is (--logprobs)"
            )
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
