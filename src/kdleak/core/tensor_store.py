"""Named tensors on disk under content keys: a cache that processes may share and that nobody else on the machine reads.

An entry is one safetensors file with a checksum over its key, names, types, shapes and bytes. Entries hold what models
say of private records, so the folder is its owner's alone (0700, files 0600).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kdleak.core.distributed import is_main
from kdleak.core.errors import KdleakError
from kdleak.core.files import make_private, replacing_file

if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensors = Mapping[str, np.ndarray] | Mapping[str, torch.Tensor]

log = logging.getLogger(__name__)


class TensorStore:
    """A folder of entries, of at most `max_bytes` (the entry just written always stays).

    It saves time and is never needed: what cannot be stored or removed is a warning. The main process alone writes.

    framework: what entries are read as, `np` for NumPy arrays, `pt` for torch tensors on the CPU; they are written as
    they come. The least recently used entries make room.
    """

    def __init__(self, folder: Path, max_bytes: int = 2 * 2**30, framework: Literal["np", "pt"] = "np"):
        self.folder, self.max_bytes, self.framework = folder, max_bytes, framework

    def get(self, key: str) -> dict[str, Any] | None:
        """The entry of `key`, or None; an entry that does not verify is removed."""
        from safetensors import SafetensorError

        path = self._path(key)
        try:
            tensors = self._read(path, key)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            log.warning("cache entry %s is damaged (%s); it is computed again", path.name, error)
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return tensors

    def put(self, key: str, tensors: Tensors) -> None:
        """Store an entry: written beside, then renamed, so that a reader sees all of it or nothing."""
        if not is_main():
            return
        path = self._path(key)
        try:
            make_private(self.folder)
            with replacing_file(path) as fresh:
                _save(tensors, fresh, {"checksum": _checksum(key, tensors)})
                fresh.chmod(0o600)
            self._make_room(path)
        except (KdleakError, OSError) as error:
            log.warning("cache entry not kept (%s); its content is computed again next time", error)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _read(self, path: Path, key: str) -> dict[str, Any]:
        """Read and verify one entry; raises ValueError where it is not what was written under `key`."""
        from safetensors import safe_open

        if not path.is_file():
            raise FileNotFoundError(path)
        with safe_open(path, framework=self.framework) as file:
            checksum = (file.metadata() or {})["checksum"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if checksum != _checksum(key, tensors):
            raise ValueError("checksum mismatch")
        return tensors

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


def _save(tensors: Tensors, path: Path, metadata: dict[str, str]) -> None:
    if any(_is_torch(tensor) for tensor in tensors.values()):
        from safetensors.torch import save_file
    else:
        from safetensors.numpy import save_file
    save_file({name: _contiguous(tensor) for name, tensor in tensors.items()}, path, metadata=metadata)


def _checksum(key: str, tensors: Tensors) -> str:
    """sha256 over the key, and each tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(f"{key}\n".encode())
    for name, tensor in sorted(tensors.items()):
        kind = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{name}:{kind}:{tuple(tensor.shape)}:".encode())
        content = _contiguous(tensor)
        if _is_torch(content):
            import torch

            content = content.reshape(-1).view(torch.uint8).numpy()
        digest.update(content.data if content.size else b"")
    return digest.hexdigest()


def _is_torch(tensor: Any) -> bool:
    return hasattr(tensor, "numel")


def _contiguous(tensor: Any) -> Any:
    """A NumPy array, or a torch tensor on the CPU, whose bytes lie in one piece."""
    if _is_torch(tensor):
        return tensor.detach().cpu().contiguous()
    import numpy as np

    return np.ascontiguousarray(tensor)
