"""Answers of an endpoint on disk, each kept as it comes: a run that was stopped, or whose endpoint died, goes on."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kdleak.core.errors import KdleakError
from kdleak.core.files import make_private

Answer = tuple[np.ndarray, np.ndarray | None]
_TABLES = (
    "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, log_prob BLOB NOT NULL, missed BLOB) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS written (key BLOB PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID",
)


class AnswerStore:
    """Log-probs (and whether the model would have taken another token) by a hash of model and token ids.

    One SQLite file, its owner's alone (0600 in a folder of 0700). Texts that were sent are not in it; log-probs, and
    what the model wrote, are as private as these.
    """

    def __init__(self, folder: Path, model: str):
        self.path = folder / "endpoint-answers.sqlite"
        self._model = model
        make_private(folder)
        with self._errors():
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            self.path.chmod(0o600)
            self._database = sqlite3.connect(self.path, timeout=60.0)
            with self._database:
                for table in _TABLES:
                    self._database.execute(table)

    def get(self, text: Sequence[int]) -> Answer | None:
        """The answer on a text of n token ids: (n - 1,) log-probs and, where it was known, missed."""
        with self._errors():
            query = "SELECT log_prob, missed FROM answers WHERE key = ?"
            row = self._database.execute(query, (self._key(text),)).fetchone()
        if row is None or len(row[0]) != 4 * (len(text) - 1):
            return None
        return np.frombuffer(row[0], "<f4"), None if row[1] is None else np.frombuffer(row[1], bool)

    def put(self, texts: Sequence[Sequence[int]], answers: Sequence[Answer]) -> None:
        """Keep the answers on `texts`: all of them are on disk, or none."""
        rows = [
            (self._key(text), log_prob.astype("<f4").tobytes(), None if missed is None else missed.tobytes())
            for text, (log_prob, missed) in zip(texts, answers, strict=True)
        ]
        with self._errors(), self._database:
            self._database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", rows)

    def get_text(self, prompt: Sequence[Any], tokens: int) -> str | None:
        """What the model wrote after a prompt (token ids, or messages), at most so many tokens."""
        with self._errors():
            query = "SELECT text FROM written WHERE key = ?"
            row = self._database.execute(query, (self._prompt_key(prompt, tokens),)).fetchone()
        return None if row is None else row[0]

    def put_texts(self, prompts: Sequence[Sequence[Any]], texts: Sequence[str], tokens: int) -> None:
        """Keep what the model wrote: all of it is on disk, or nothing."""
        rows = [(self._prompt_key(prompt, tokens), text) for prompt, text in zip(prompts, texts, strict=True)]
        with self._errors(), self._database:
            self._database.executemany("INSERT OR REPLACE INTO written VALUES (?, ?)", rows)

    def close(self) -> None:
        self._database.close()

    def _key(self, text: Sequence[int]) -> bytes:
        return hashlib.sha256(f"{self._model}\n".encode() + np.array(text, "<i4").tobytes()).digest()

    def _prompt_key(self, prompt: Sequence[Any], tokens: int) -> bytes:
        return hashlib.sha256(f"{self._model}\n{tokens}\n{json.dumps(list(prompt))}".encode()).digest()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise KdleakError(f"{self.path}: cannot be used ({error}); free the disk, or delete this file") from None
