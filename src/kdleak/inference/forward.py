"""Forward passes to the hidden states from which response tokens are predicted (their logits: models.output_head)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kdleak.data.batching import Batch
from kdleak.models.architecture import decoder
from kdleak.models.output_head import output_logits

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel


def hidden_states(model: PreTrainedModel, batch: Batch, past: Cache | None = None) -> torch.Tensor:
    """Last hidden states at the response positions of `batch`: (m, hidden_size).

    past: keys and values of what every row has read before.
    """
    output = decoder(model)(input_ids=batch.input_ids, past_key_values=past, use_cache=past is not None)
    states = output.last_hidden_state
    return states.reshape(-1, states.shape[-1]).index_select(0, batch.positions)


def response_logits(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The model's own logits that predict the response tokens of `batch`: (m, vocabulary)."""
    return output_logits(model, hidden_states(model, batch))
