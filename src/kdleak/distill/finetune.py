"""Cross-entropy training: the bases, the teacher, the No-KD baseline."""

from __future__ import annotations

import torch

from kdleak.data.batching import Batch
from kdleak.data.encoding import EncodedRecord
from kdleak.distill.objective import language_model_loss
from kdleak.models.forward import hidden_states


def cross_entropy(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Mean negative log-likelihood of the response tokens (EOS included), nats."""
    return language_model_loss(hidden_states(model, batch), model.get_output_embeddings(), batch.targets)


def as_language_modelling(record: EncodedRecord, start: int, skip: int = 0) -> EncodedRecord:
    """The same tokens with a loss on all of them: the text after the token `start` counts as response.

    `skip` leaves out so many tokens of the prompt: the template's introduction, of which there is nothing to learn.
    """
    return EncodedRecord(record.record_id, (start,), record.prompt[skip:] + record.response, n_scored=0)
