"""What the teacher releases about a batch, in two steps: hidden states, live or from a cache, and logits of them.

Hidden states times the output head are the teacher's logits exactly, for every divergence, epoch, seed and student
size, at a fraction of their size (hidden size instead of vocabulary). For fixed records they are computed once; what
is cached does not depend on the release that stands behind it, but for other models that it asks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from kdleak.core import distributed
from kdleak.core.tensor_store import TensorStore
from kdleak.data.batching import Batch, collate, scoring_batches
from kdleak.data.encoding import EncodedRecord
from kdleak.inference.forward import hidden_states
from kdleak.inference.release import Release, beside, identity
from kdleak.models.output_head import output_head, output_logits
from kdleak.training.batch_sources import DistillationBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Raised when the meaning of a stored tensor changes: older entries are then never found.
_VERSION = "2"


class TeacherSignal(Protocol):
    """The teacher as all objectives and rewards see it; nothing here carries a gradient."""

    def states(self, batch: Batch) -> torch.Tensor:
        """Hidden states (m, d_t) at the response positions of `batch`."""
        ...

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """What the teacher releases at positions with these states: (c, d_t) -> (c, V); −inf where left out."""
        ...


class LiveTeacher:
    """Asks the teacher at every batch; `release` is applied to its logits. Where that asks other models too, states are
    those of all of them, side by side."""

    def __init__(self, teacher: PreTrainedModel, release: Release = identity):
        self.teacher, self.release = teacher.eval(), release
        self.models = (teacher, *(model.eval() for model in beside(release)))

    @torch.no_grad()
    def states(self, batch: Batch) -> torch.Tensor:
        states = [hidden_states(model, batch) for model in self.models]
        return states[0] if len(states) == 1 else torch.cat(states, dim=-1)

    @torch.no_grad()
    def logits(self, states: torch.Tensor) -> torch.Tensor:
        parts = states.split([_width(model) for model in self.models], dim=-1)
        return self.release(*(output_logits(model, part) for model, part in zip(self.models, parts, strict=True)))


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
    """Hidden states under content keys in a folder of at most `max_bytes`; what would not fit is not stored."""

    def __init__(self, folder: Path, max_bytes: int = 8 * 2**30):
        self.folder, self.max_bytes = folder, max_bytes
        self._store = TensorStore(folder, max_bytes, framework="pt")

    def get(self, key: str) -> torch.Tensor | None:
        """The entry of `key`; None where there is none. One that does not verify is removed."""
        entry = self._store.get(key)
        return None if entry is None else entry["hidden"]

    def put(self, key: str, hidden: torch.Tensor) -> None:
        """Store an entry, the least recently used making room for it."""
        if hidden.nbytes <= self.max_bytes:
            self._store.put(key, {"hidden": hidden})


def cached_teacher(
    live: LiveTeacher,
    teacher_digest: str,
    records: Sequence[EncodedRecord],
    cache: HiddenStateCache,
    batch_tokens: int,
) -> LiveTeacher | CachedTeacher:
    """`live` with the states of `records`: from `cache`, else by one forward pass of at most `batch_tokens` a batch.

    `teacher_digest` identifies the content of the teacher, and of the models that its release asks. A teacher whose
    states would outgrow the cache is asked live.
    """
    lengths = [len(r.response) for r in records]
    width, dtype = _state_shape(live)
    if sum(lengths) * width * dtype.itemsize > cache.max_bytes:
        return live
    key = _key(teacher_digest, dtype, records)
    hidden = cache.get(key)
    if not distributed.all_agree(hidden is not None) or hidden is None:
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
    shard = distributed.shard_by_length([len(r.prompt) + len(r.response) for r in records])
    sharded = [records[i] for i in shard]
    for indices in scoring_batches(sharded, batch_tokens):
        flat = live.states(collate(sharded, indices).to(device)).cpu()
        for i, states in zip(indices, flat.split([len(sharded[i].response) for i in indices]), strict=True):
            hidden[starts[shard[i]] : starts[shard[i] + 1]] = states
    distributed.all_reduce_sum_(hidden)
    return hidden


def _state_shape(live: LiveTeacher) -> tuple[int, torch.dtype]:
    """Width and dtype of the states of all models that are asked."""
    return sum(_width(model) for model in live.models), output_head(live.teacher).weight.dtype


def _width(model: PreTrainedModel) -> int:
    """Width of the states that the output head takes."""
    return output_head(model).weight.shape[1]


def _key(teacher_digest: str, dtype: torch.dtype, records: Sequence[EncodedRecord]) -> str:
    digest = hashlib.sha256(f"{_VERSION}\n{teacher_digest}\n{dtype}\n".encode())
    for record in records:
        digest.update(f"{len(record.prompt)}:{record.prompt + record.response}\n".encode())
    return digest.hexdigest()
