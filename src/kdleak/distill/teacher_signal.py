"""What the teacher releases about a batch, in two steps: hidden states, live or from a cache, and logits of them.

Hidden states times the output head are the teacher's logits exactly, for every divergence, epoch, seed and student
size, at a fraction of their size (hidden size instead of vocabulary). For fixed records they are computed once; what
is cached does not depend on the release that stands behind it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from kdleak.core import distributed
from kdleak.core.errors import KdleakError
from kdleak.core.files import replacing_file
from kdleak.data.batching import Batch, collate, scoring_batches
from kdleak.data.encoding import EncodedRecord
from kdleak.inference.forward import head, hidden_states
from kdleak.inference.release import Release, identity
from kdleak.training.batch_sources import DistillationBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

#: Raised when the meaning of a stored tensor changes: older entries are then never found.
_VERSION = "1"
#: What a file holds beside its tensor, at most.
_HEADER_BYTES = 1024


class TeacherSignal(Protocol):
    """The teacher as all objectives and rewards see it; nothing here carries a gradient."""

    def states(self, batch: Batch) -> torch.Tensor:
        """Hidden states (m, d_t) at the response positions of `batch`."""

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """What the teacher releases at positions with these states: (c, d_t) -> (c, V); −inf where left out."""


class LiveTeacher:
    """Asks the teacher at every batch; `release` is applied to its logits."""

    def __init__(self, teacher: PreTrainedModel, release: Release = identity):
        self.teacher, self.release = teacher.eval(), release

    @torch.no_grad()
    def states(self, batch: Batch) -> torch.Tensor:
        return hidden_states(self.teacher, batch)

    @torch.no_grad()
    def logits(self, states: torch.Tensor) -> torch.Tensor:
        return self.release(head(self.teacher, states))


class CachedTeacher:
    """Holds the teacher's hidden states for fixed records; asks `live` about what a student wrote."""

    def __init__(self, live: LiveTeacher, hidden: torch.Tensor, lengths: Sequence[int]):
        """`hidden` (Σ lengths, d_t): the records' states one after another, `lengths` their response lengths."""
        self.live, self.logits = live, live.logits
        self._hidden = hidden.split(list(lengths))

    def states(self, batch: Batch) -> torch.Tensor:
        if isinstance(batch, DistillationBatch) and batch.written_by_student:
            return self.live.states(batch)
        return torch.cat([self._hidden[i] for i in batch.indices]).to(batch.input_ids.device)


class HiddenStateCache:
    """A folder of hidden states of at most `max_bytes`; what would not fit is not stored.

    It saves time and is never needed: what cannot be stored or removed is a warning.
    """

    def __init__(self, folder: Path, max_bytes: int = 8 * 2**30):
        self.folder, self.max_bytes = folder, max_bytes

    def get(self, key: str) -> torch.Tensor | None:
        """The entry of `key`; None where there is none. One that does not verify is removed."""
        path = self._path(key)
        try:
            with safe_open(path, framework="pt") as file:
                hidden, checksum = file.get_tensor("hidden"), (file.metadata() or {})["checksum"]
            if checksum != _checksum(key, hidden):
                raise ValueError("checksum mismatch")
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            log.warning("teacher signal %s is damaged (%s); it is computed again", path.name, error)
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return hidden

    def put(self, key: str, hidden: torch.Tensor) -> None:
        """Store an entry, the least recently used making room for it."""
        if hidden.nbytes > self.max_bytes or not distributed.is_main():
            return
        try:
            self._make_room(hidden.nbytes + _HEADER_BYTES)
            with replacing_file(self._path(key)) as fresh:
                save_file({"hidden": hidden}, fresh, metadata={"checksum": _checksum(key, hidden)})
        except (KdleakError, OSError) as error:
            log.warning("teacher signal not kept (%s); it is computed again next time", error)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _make_room(self, wanted: int) -> None:
        if not self.folder.is_dir():
            return
        entries = sorted((p.stat().st_mtime, p.stat().st_size, p) for p in self.folder.iterdir() if p.is_file())
        total = wanted + sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if total <= self.max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size


def cached_teacher(
    live: LiveTeacher,
    teacher_digest: str,
    records: Sequence[EncodedRecord],
    cache: HiddenStateCache,
    batch_tokens: int,
) -> LiveTeacher | CachedTeacher:
    """`live` with the states of `records`: from `cache`, else by one forward pass of at most `batch_tokens` a batch.

    `teacher_digest` identifies the teacher's content. A teacher whose states would outgrow the cache is asked live.
    """
    lengths = [len(r.response) for r in records]
    width, dtype = _state_shape(live)
    if sum(lengths) * width * dtype.itemsize > cache.max_bytes:
        return live
    key = _key(teacher_digest, dtype, records)
    hidden = cache.get(key)
    if not distributed.everyone(hidden is not None):
        hidden = teacher_hidden_states(live, records, batch_tokens)
        cache.put(key, hidden)
    return CachedTeacher(live, hidden, lengths)


def teacher_hidden_states(live: LiveTeacher, records: Sequence[EncodedRecord], batch_tokens: int) -> torch.Tensor:
    """(Σ response lengths, d_t) on the CPU: the states of all records, in their order."""
    device, (width, dtype) = next(live.teacher.parameters()).device, _state_shape(live)
    starts = [0]
    for record in records:
        starts.append(starts[-1] + len(record.response))
    hidden = torch.zeros(starts[-1], width, dtype=dtype)
    shard = distributed.share([len(r.prompt) + len(r.response) for r in records])
    sharded = [records[i] for i in shard]
    for indices in scoring_batches(sharded, batch_tokens):
        flat = live.states(collate(sharded, indices).to(device)).cpu()
        for i, states in zip(indices, flat.split([len(sharded[i].response) for i in indices]), strict=True):
            hidden[starts[shard[i]] : starts[shard[i] + 1]] = states
    distributed.add_up(hidden)
    return hidden


def _state_shape(live: LiveTeacher) -> tuple[int, torch.dtype]:
    """Width and dtype of the states that the teacher's output head takes."""
    output = live.teacher.get_output_embeddings()
    return output.in_features, output.weight.dtype


def _key(teacher_digest: str, dtype: torch.dtype, records: Sequence[EncodedRecord]) -> str:
    digest = hashlib.sha256(f"{_VERSION}\n{teacher_digest}\n{dtype}\n".encode())
    for record in records:
        digest.update(f"{len(record.prompt)}:{record.prompt + record.response}\n".encode())
    return digest.hexdigest()


def _checksum(key: str, hidden: torch.Tensor) -> str:
    """sha256 over key, shape and bytes."""
    digest = hashlib.sha256(f"{key}:{tuple(hidden.shape)}".encode())
    digest.update(hidden.contiguous().view(torch.uint8).numpy().data if hidden.numel() else b"")
    return digest.hexdigest()
