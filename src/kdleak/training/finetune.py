"""Cross-entropy training: the bases, the teacher, the no-KD student."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from kdleak.core import distributed
from kdleak.data.batching import Batch, collate, scoring_batches
from kdleak.data.encoding import EncodedRecord, Encoder, first_id
from kdleak.inference.forward import hidden_states
from kdleak.models.output_head import output_head
from kdleak.training.batch_sources import DistillationBatch
from kdleak.training.chunked_loss import language_model_loss

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from kdleak.config.schema import Params
    from kdleak.training.loop import Objective


def cross_entropy(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Mean negative log-likelihood of the response tokens (EOS included), nats."""
    return language_model_loss(hidden_states(model, batch), output_head(model), batch.targets, batch.weights)


def with_corpus_loss(objective: Objective, lm_weight: float, corpus_loss: Objective = cross_entropy) -> Objective:
    """`objective`, and `lm_weight` times `corpus_loss` of the corpus that stands beside the batch, if one does."""

    def both(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        corpus = batch.corpus if isinstance(batch, DistillationBatch) else None
        if corpus is None:
            return objective(model, batch)
        if not len(batch.input_ids):  # a micro-batch of the corpus alone
            return lm_weight * corpus_loss(model, corpus)
        return objective(model, batch) + lm_weight * corpus_loss(model, corpus)

    return both


@torch.no_grad()
def evaluate(model: PreTrainedModel, records: Sequence[EncodedRecord], batch_tokens: int) -> float:
    """Mean negative log-likelihood over the response tokens of all `records`, nats, dropout off."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    sums = np.zeros(2)
    sharded = [records[i] for i in distributed.shard_by_length([len(r.prompt) + len(r.response) for r in records])]
    for indices in scoring_batches(sharded, batch_tokens):
        batch = collate(sharded, indices).to(device)
        sums += cross_entropy(model, batch).item() * len(batch.targets), len(batch.targets)
    distributed.all_reduce_sum_(sums)
    model.train(training)
    return float(sums[0] / sums[1])


def auxiliary_text(auxiliary: pd.DataFrame, params: Params, tokenizer: PreTrainedTokenizerBase) -> list[EncodedRecord]:
    """Rows of a records table with a loss on all of their tokens, the template's introduction left out."""
    encoder = Encoder(tokenizer, params.model.max_prompt_tokens, params.model.max_tokens - 1)
    skips = [encoder.introduction_length(context) for context in auxiliary["context"]]
    encoded = zip(encoder.encode_frame(auxiliary), skips, strict=True)
    return [as_language_modelling(record, first_id(tokenizer), skip) for record, skip in encoded]


def as_language_modelling(record: EncodedRecord, start: int, skip: int = 0) -> EncodedRecord:
    """The same tokens with a loss on all of them: the text after the token `start` counts as response.

    `skip` leaves out so many tokens of the prompt: the template's introduction, of which there is nothing to learn.
    """
    return EncodedRecord(record.record_id, (start,), record.prompt[skip:] + record.response, n_scored=0)
