"""Cross-entropy training: the bases, the teacher, the No-KD baseline."""

from __future__ import annotations

import torch

from kdleak.data.batching import Batch
from kdleak.data.encoding import EncodedRecord
from kdleak.models.forward import response_logits


def cross_entropy(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Mean negative log-likelihood of the response tokens (EOS included), nats."""
    return torch.nn.functional.cross_entropy(response_logits(model, batch).float(), batch.targets)


def as_language_modelling(record: EncodedRecord, start: int) -> EncodedRecord:
    """The same tokens with a loss on all of them: the whole text after the token `start` counts as response."""
    return EncodedRecord(record.record_id, (start,), record.prompt + record.response, n_scored=0)
