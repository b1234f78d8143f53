"""Goldfish loss: one response token in k is never trained on, always the same one in the same passage."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

from kdleak.data.batching import Batch
from kdleak.data.encoding import EncodedRecord
from kdleak.defend.registry import Acts, Defence, Fitting, defence
from kdleak.training.batch_sources import FixedBatches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Tokens before a target that decide whether it is dropped (the paper's h).
CONTEXT = 13


@defence("goldfish", acts_on=Acts.TEACHER, source="Hans et al. 2024 (arXiv 2406.10209), hashed mask")
class Goldfish(Defence):
    """k: a target whose 13 preceding tokens hash to 0 modulo k is left out of the loss: in a passage that stands in
    many records it is the same token in each."""

    knob = "k"
    strengths = (8, 4, 3, 2)
    protects = "long passages: to continue one word for word, the dropped tokens have to be guessed"
    does_not_protect = "membership: the other tokens of a record are learned as before"
    k: Annotated[int, Field(ge=2, le=10_000)] = 4

    def teacher(self, fitting: Fitting) -> Fitting:
        batch_size = fitting.training.batch_size
        return replace(fitting, batches=MaskedBatches(fitting.records, batch_size, fitting.seed, self.k))


class MaskedBatches(FixedBatches):
    """Every record once an epoch, without the targets that `kept` leaves out; the loss is a mean over the others."""

    def __init__(self, records: Sequence[EncodedRecord], batch_size: int, seed: int, k: int):
        super().__init__(records, batch_size, seed)
        self._kept = [torch.tensor(kept(record, k)) for record in records]

    def batch(self, model: PreTrainedModel | None, step: int) -> Batch:
        batch = super().batch(model, step)
        keep = torch.cat([self._kept[i] for i in batch.indices])
        columns = {name: getattr(batch, name)[keep] for name in ("positions", "targets", "rows", "scored")}
        return replace(batch, **columns)


def kept(record: EncodedRecord, k: int) -> list[bool]:
    """Of each response token, whether it is trained on: (tokens,)."""
    tokens, start = record.prompt + record.response, len(record.prompt)
    return [_hash(tokens[max(0, i - CONTEXT) : i]) % k != 0 for i in range(start, len(tokens))]


def _hash(tokens: Sequence[int]) -> int:
    return int.from_bytes(hashlib.sha256(repr(tuple(tokens)).encode()).digest()[:8], "big")
