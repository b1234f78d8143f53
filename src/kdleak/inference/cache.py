"""Results of forward passes, on disk under a key of model content and data content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from kdleak.core import distributed
from kdleak.core.tensor_store import TensorStore
from kdleak.data.encoding import EncodedRecord
from kdleak.inference.token_statistics import TokenStatistics

Arrays = dict[str, np.ndarray]

#: Raised when the meaning of a stored statistic changes: older entries are then never found.
_VERSION = "3"
_COLUMNS = {"offsets": np.int64, "log_prob": np.float32, "mean": np.float32, "std": np.float32}
_COLUMNS |= {"missed": np.bool_, "argmax": np.int32}


def content_key(model: str, records: Iterable[EncodedRecord], what: str = "token statistics, float32") -> str:
    """Key of `what` is computed from `records` under the model of hash `model`; `what` names its settings too."""
    digest = hashlib.sha256(f"{_VERSION}\n{what}\n{model}\n".encode())
    for r in records:
        digest.update(f"{r.record_id}:{len(r.prompt)}:{r.n_scored}:".encode())
        digest.update(np.array(r.prompt + r.response, dtype="<i4").tobytes())
        digest.update(b"\n")
    return digest.hexdigest()


class ArrayCache(TensorStore):
    """Named arrays under content keys.

    together: what is missing all processes compute together, so all must ask for the same entries.
    """

    def __init__(self, folder: Path, max_bytes: int = 2 * 2**30, together: bool = False):
        super().__init__(folder, max_bytes)
        self.together = together

    def get_or_compute(self, key: str, compute: Callable[[], Arrays]) -> Arrays:
        """The entry of `key`; computed and stored where it is missing or damaged."""
        entry = self.get(key)
        known = entry is not None if not self.together else distributed.all_agree(entry is not None)
        if entry is None or not known:
            entry = compute()
            self.put(key, entry)
        return entry


class StatisticsCache:
    """Token statistics in an `ArrayCache`."""

    def __init__(self, arrays: ArrayCache):
        self.arrays = arrays

    def get_or_compute(self, key: str, compute: Callable[[], TokenStatistics]) -> TokenStatistics:
        """The statistics of `key`; computed and stored where they are missing or damaged."""
        return from_arrays(self.arrays.get_or_compute(key, lambda: to_arrays(compute())))


def to_arrays(statistics: TokenStatistics) -> Arrays:
    """Token statistics as named arrays, as files hold them."""
    ids = json.dumps([str(i) for i in statistics.record_ids]).encode()
    columns = {
        name: np.asarray(column, dtype)
        for name, dtype in _COLUMNS.items()
        if (column := getattr(statistics, name)) is not None
    }
    return {"record_ids": np.frombuffer(ids, np.uint8), **columns}


def from_arrays(arrays: Arrays) -> TokenStatistics:
    """The inverse of `to_arrays`; KeyError or ValueError for other arrays."""
    ids: list[str] = json.loads(arrays["record_ids"].tobytes())
    columns = {name: arrays[name] for name in _COLUMNS if name != "argmax"}
    return TokenStatistics(np.array(ids, dtype=str), **columns, argmax=arrays.get("argmax"))
