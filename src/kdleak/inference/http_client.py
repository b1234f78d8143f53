"""JSON over HTTP with retries: each try bounded in time and size, no redirect, no proxy, nothing of an answer printed.

Standard library alone. What may pass (a dropped connection, a time-out, 429, 5xx) is tried again, with waits that
double; what will not (401, 404, 400) ends at once in one line.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from kdleak.core.errors import KdleakError
from kdleak.core.version import __version__

#: Seconds that one try may take in all; tries; seconds before the second of them, doubled each time; and the longest.
TIMEOUT, TRIES, FIRST_WAIT, LONGEST_WAIT = 300.0, 6, 1.0, 60.0
_PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
_MEANS = {
    401: "it refuses the key; set KDLEAK_API_KEY",
    403: "it refuses the key; set KDLEAK_API_KEY",
    404: "it has no such path or model; give the address that ends in /v1",
    413: "a text is too long for it; lower --max-tokens",
}
_PIECE = 2**16


class Refused(KdleakError):
    """The host answers that it takes no such request (400, 422)."""


class Unanswered(KdleakError):
    """No answer after all tries."""


class HttpClient:
    """Requests to one host over one connection. where: what errors call it. rate: requests a second, at most."""

    def __init__(
        self, scheme: str, host: str, port: int, headers: Mapping[str, str], where: str, rate: float | None = None
    ):
        self._secure = ssl.create_default_context() if scheme == "https" else None
        self._host, self._port, self._where = host, port, where
        self._headers = {"User-Agent": f"kdleak/{__version__}", "Accept": "application/json", **headers}
        self._interval, self._last = (1.0 / rate if rate else 0.0), -1e9
        self._connection: http.client.HTTPConnection | None = None

    def request(self, method: str, path: str, body: Any, max_bytes: int) -> Any:
        """The answer's JSON. Raises KdleakError for a refusal and for what is no JSON of `max_bytes`, `Unanswered`
        after the last try."""
        content = None if body is None else json.dumps(body).encode()
        wait = FIRST_WAIT
        why = ""
        for tried in range(TRIES):
            if tried:
                time.sleep(min(wait, LONGEST_WAIT))
                wait *= 2
            self._pace()
            try:
                status, asked_wait, answer = self._exchange(method, path, content, max_bytes)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                why = _in_words(error)
                if isinstance(error, socket.gaierror | ssl.SSLCertVerificationError):
                    raise KdleakError(
                        f"{self._where}: it cannot be reached ({why}); mend that, or the address"
                    ) from None
                continue
            if status == 200:
                return self._parsed(answer, max_bytes)
            if status not in _PASSING:
                means = _MEANS.get(status, "it takes no such request (token ids, echo, logprobs), or is none")
                kind = Refused if status in (400, 422) else KdleakError
                raise kind(f"{self._where}: it answers {status}: {means}")
            why = f"it answers {status}"
            wait = max(wait, asked_wait)
        raise Unanswered(f"{self._where}: no answer in {TRIES} tries ({why}); the same command goes on where it was")

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _pace(self) -> None:
        """Wait until the next request may be made."""
        time.sleep(max(0.0, self._last + self._interval - time.monotonic()))
        self._last = time.monotonic()

    def _exchange(self, method: str, path: str, content: bytes | None, max_bytes: int) -> tuple[int, float, bytes]:
        """(status, seconds that the host asks to wait, content) of one try, within `TIMEOUT` seconds in all."""
        connection = self._connected()
        clock = threading.Timer(TIMEOUT, _cut, [connection.sock])  # a host may send one byte a minute for ever
        clock.daemon = True
        clock.start()
        try:
            connection.request(method, path, body=content, headers=dict(self._headers))
            response = connection.getresponse()
            pieces, size = [], 0
            while size <= max_bytes and (piece := response.read(_PIECE)):
                pieces.append(piece)
                size += len(piece)
            if size <= max_bytes and (response.length or 0) > 0:
                raise http.client.IncompleteRead(b"")
            if size > max_bytes or response.will_close:
                self.close()
            return response.status, _seconds(response.headers.get("Retry-After")), b"".join(pieces)
        finally:
            clock.cancel()

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            where = self._host, self._port
            if self._secure is None:
                self._connection = http.client.HTTPConnection(*where, timeout=TIMEOUT)
            else:
                self._connection = http.client.HTTPSConnection(*where, timeout=TIMEOUT, context=self._secure)
        if self._connection.sock is None:
            self._connection.connect()
        return self._connection

    def _parsed(self, answer: bytes, max_bytes: int) -> Any:
        if len(answer) > max_bytes:
            raise KdleakError(f"{self._where}: an answer of more than {max_bytes:,} bytes; is it such an endpoint?")
        try:
            return json.loads(answer.decode())
        except (ValueError, RecursionError):  # no UTF-8, no JSON, a number of too many digits, or nested too deep
            raise KdleakError(f"{self._where}: its answer is not JSON; is it such an endpoint?") from None


def _cut(sock: socket.socket | None) -> None:
    if sock is not None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _seconds(value: str | None) -> float:
    """Of a Retry-After header; 0 of one that is none, or a date."""
    with suppress(ValueError, TypeError):
        return min(LONGEST_WAIT, max(0.0, float(value or 0)))
    return 0.0


def _in_words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "its certificate is not trusted here"
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ssl.SSLError):
        return error.strerror.lower()
    return "the connection ended early"
