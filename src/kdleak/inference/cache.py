"""What forward passes gave, on disk under a key of model content and data content.

An entry is one safetensors file that carries a checksum of its arrays; one that does not verify is discarded and
computed again. The least recently used entries make room when the folder outgrows its bound.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from kdleak.core import distributed
from kdleak.core.errors import KdleakError
from kdleak.core.files import replacing_file
from kdleak.data.encoding import EncodedRecord
from kdleak.inference.token_statistics import TokenStatistics

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]

#: Raised when the meaning of a stored statistic changes: older entries are then never found.
_VERSION = "1"
_COLUMNS = {"offsets": np.int64, "log_prob": np.float32, "mean": np.float32, "std": np.float32}
_COLUMNS |= {"rank": np.int32, "argmax": np.int32}


def content_key(model: str, records: Iterable[EncodedRecord], what: str = "token statistics, float32") -> str:
    """Key of `what` is computed from `records` under the model of hash `model`; `what` names its settings too."""
    digest = hashlib.sha256(f"{_VERSION}\n{what}\n{model}\n".encode())
    for r in records:
        digest.update(f"{r.record_id}:{len(r.prompt)}:{r.n_scored}:".encode())
        digest.update(np.array(r.prompt + r.response, dtype="<i4").tobytes())
        digest.update(b"\n")
    return digest.hexdigest()


class ArrayCache:
    """A folder of named arrays under content keys, of at most `max_bytes` (the entry just written always stays).

    It saves time and is never needed: what cannot be stored or removed is a warning. Processes may share a folder.

    together: what is missing all processes compute together, so all must ask for the same entries.
    """

    def __init__(self, folder: Path, max_bytes: int = 2 * 2**30, together: bool = False):
        self.folder = folder
        self.max_bytes = max_bytes
        self.together = together

    def get_or_compute(self, key: str, compute: Callable[[], Arrays]) -> Arrays:
        """The entry of `key`; computed and stored where it is missing or damaged."""
        found = self.get(key)
        missing = found is None if not self.together else not distributed.everyone(found is not None)
        if missing:
            found = compute()
            self.put(key, found)
        return found

    def get(self, key: str) -> Arrays | None:
        """The entry of `key`, or None; an entry that does not verify is removed."""
        path = self._path(key)
        try:
            arrays = _read(path, key)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            log.warning("cache entry %s is damaged (%s); it is computed again", path.name, error)
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return arrays

    def put(self, key: str, arrays: Arrays) -> None:
        """Store an entry: written beside, then renamed, so that a reader sees all of it or nothing."""
        if not distributed.is_main():
            return
        path = self._path(key)
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        try:
            with replacing_file(path) as fresh:
                fresh.write_bytes(save(arrays, metadata={"key": key, "checksum": _checksum(arrays)}))
            self._make_room(path)
        except (KdleakError, OSError) as error:
            log.warning("cache entry not kept (%s); its content is computed again next time", error)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _make_room(self, newest: Path) -> None:
        """Remove the least recently used files (left-overs of a killed writer too) until the bound holds."""
        entries: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):
                if path != newest:
                    entries.append((path.stat().st_mtime, path.stat().st_size, path))
        total = newest.stat().st_size + sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size


class StatisticsCache:
    """Token statistics in an `ArrayCache`."""

    def __init__(self, arrays: ArrayCache):
        self.arrays = arrays

    def get_or_compute(self, key: str, compute: Callable[[], TokenStatistics]) -> TokenStatistics:
        """The statistics of `key`; computed and stored where they are missing or damaged."""
        found = self.arrays.get_or_compute(key, lambda: _arrays(compute()))
        ids: list[str] = json.loads(found["record_ids"].tobytes())
        return TokenStatistics(np.array(ids, dtype=str), **{name: found[name] for name in _COLUMNS})


def _arrays(statistics: TokenStatistics) -> Arrays:
    ids = json.dumps([str(i) for i in statistics.record_ids]).encode()
    columns = {name: np.asarray(getattr(statistics, name), dtype) for name, dtype in _COLUMNS.items()}
    return {"record_ids": np.frombuffer(ids, np.uint8), **columns}


def _checksum(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name}:{arrays[name].shape}:".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _read(path: Path, key: str) -> Arrays:
    """Read and verify one entry; raises ValueError where it is not what was written under `key`."""
    if not path.is_file():
        raise FileNotFoundError(path)
    with safe_open(path, framework="np") as f:
        metadata = f.metadata() or {}
        arrays = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 - not a mapping
    if metadata.get("key") != key or metadata.get("checksum") != _checksum(arrays):
        raise ValueError("checksum mismatch")
    return arrays
