"""Cross-entropy training: the bases, the teacher, the No-KD baseline."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kdleak.data.batching import Batch, collate, scoring_batches
from kdleak.data.encoding import EncodedRecord
from kdleak.distill.objective import language_model_loss
from kdleak.models.forward import hidden_states


def cross_entropy(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Mean negative log-likelihood of the response tokens (EOS included), nats."""
    return language_model_loss(hidden_states(model, batch), model.get_output_embeddings(), batch.targets)


@torch.no_grad()
def evaluate(model: torch.nn.Module, records: Sequence[EncodedRecord], batch_tokens: int) -> float:
    """Mean negative log-likelihood over the response tokens of all `records`, nats, dropout off."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    total, tokens = 0.0, 0
    for indices in scoring_batches(records, batch_tokens):
        batch = collate(records, indices).to(device)
        total += cross_entropy(model, batch).item() * len(batch.targets)
        tokens += len(batch.targets)
    model.train(training)
    return total / tokens


def as_language_modelling(record: EncodedRecord, start: int, skip: int = 0) -> EncodedRecord:
    """The same tokens with a loss on all of them: the text after the token `start` counts as response.

    `skip` leaves out so many tokens of the prompt: the template's introduction, of which there is nothing to learn.
    """
    return EncodedRecord(record.record_id, (start,), record.prompt[skip:] + record.response, n_scored=0)
