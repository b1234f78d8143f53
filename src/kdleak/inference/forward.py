"""Forward passes that spend the output head on response positions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kdleak.data.batching import Batch

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel


def decoder(model: PreTrainedModel) -> torch.nn.Module:
    """The transformer below the output head (GPT2Model, OPTModel, LlamaModel), with peft adapters in place."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return getattr(inner, inner.base_model_prefix)


def hidden_states(model: PreTrainedModel, batch: Batch, past: Cache | None = None) -> torch.Tensor:
    """Last hidden states at the response positions of `batch`: (m, hidden_size).

    past: keys and values of what every row has read before.
    """
    output = decoder(model)(input_ids=batch.input_ids, past_key_values=past, use_cache=past is not None)
    states = output.last_hidden_state
    return states.reshape(-1, states.shape[-1]).index_select(0, batch.positions)


def head(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """Logits for hidden states: (m, hidden_size) -> (m, vocabulary)."""
    return model.get_output_embeddings()(hidden)


def response_logits(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Logits that predict the response tokens of `batch`: (m, vocabulary)."""
    return head(model, hidden_states(model, batch))
