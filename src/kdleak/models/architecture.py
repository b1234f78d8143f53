"""What a causal LM of Transformers is made of: its decoder and its number of positions, whatever the family."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

#: Stands for "no limit" where a number of positions is wanted.
UNLIMITED = 2**31 - 1
#: What families call their number of positions, beside `max_position_embeddings`, to which most map their own name.
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")


def unwrapped(model: PreTrainedModel) -> PreTrainedModel:
    """`model` without peft's wrapper; its adapters stay in place."""
    base = getattr(model, "get_base_model", None)
    return model if base is None else base()


def decoder(model: PreTrainedModel) -> torch.nn.Module:
    """The transformer below the output head (GPT2Model, OPTModel, LlamaModel), with peft adapters in place."""
    inner = unwrapped(model)
    return getattr(inner, inner.base_model_prefix)


def positions(config: PretrainedConfig) -> int:
    """The longest sequence, in tokens, that a model of `config` has positions for; UNLIMITED for a state-space model or
    one whose positions are differences (ALiBi). A sliding window is no limit: what leaves it is not attended to."""
    text = config.get_text_config()
    return next((n for name in _POSITIONS if isinstance(n := getattr(text, name, None), int) and n > 0), UNLIMITED)
