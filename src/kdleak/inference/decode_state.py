"""One model's side of a batch that is being continued: what it has read, and the logits of what comes next.

`CachedState` keeps keys and values of prompts padded on the left. A model whose layers do not attend to all that stands
before (a sliding window, a state space), or which takes no such mask, reads its text anew at every token instead
(`RecomputedState`): slow, and right for every causal model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

import torch

from kdleak.inference.shared_prefix import keeps_all_keys
from kdleak.models.architecture import decoder, positions, unwrapped
from kdleak.models.output_head import output_logits

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

_cacheable: WeakKeyDictionary[torch.nn.Module, bool] = WeakKeyDictionary()


class DecodeState(Protocol):
    """`start` and `advance` return the logits that follow the last token of each row: (n, vocabulary), fp32."""

    def start(self) -> torch.Tensor: ...

    def advance(self, tokens: torch.Tensor) -> torch.Tensor:
        """Let each row grow by one of `tokens` (n,)."""
        ...

    def keep(self, rows: torch.Tensor) -> None:
        """Keep the rows of the batch of these indices alone."""


def decode_state(model: PreTrainedModel, prompts: Sequence[Sequence[int]], steps: int) -> DecodeState:
    """The fastest state that is right for `model`; at most `steps` tokens follow the prompts."""
    inner = unwrapped(model)
    if inner not in _cacheable:
        _cacheable[inner] = keeps_all_keys(model) and _cache_is_exact(model)
    return (CachedState if _cacheable[inner] else RecomputedState)(model, prompts, steps)


class CachedState:
    """Keys and values in preallocated columns, prompts padded on the left by an additive mask."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], steps: int):
        device = next(model.parameters()).device
        self.model, self.decoder = model, decoder(model)
        self.tokens, real = _left_padded(prompts, device)
        self.columns = real.shape[1]
        self.cache = _preallocated_cache(model, self.columns + steps)
        #: Position ids of the next tokens, (n, t) for the prompts, then (n, 1).
        self.positions = (real.cumsum(-1) - 1).clamp_(min=0)
        padding = torch.zeros(real.shape[0], self.columns + steps, dtype=model.dtype, device=device)
        padding[:, : self.columns].masked_fill_(~real, _never(model.dtype))
        #: Added to attention scores, (n, 1, 1, capacity).
        self.padding = padding[:, None, None]
        self.last_position = positions(model.config) - 1

    def start(self) -> torch.Tensor:
        return output_logits(self.model, self._read(self.tokens))

    def advance(self, tokens: torch.Tensor) -> torch.Tensor:
        return output_logits(self.model, self._read(tokens[:, None]))

    def _read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Last hidden states after `tokens` (n, t): (n, hidden_size)."""
        width = tokens.shape[1]
        mask = self.padding[..., : self.columns]
        if width > 1:
            mask = mask + _causal(width, mask.dtype, mask.device)
        states = self.decoder(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        # Only a row that has ended and not yet left can come to the end of the model's positions.
        self.positions = (self.positions[:, -1:] + 1).clamp_(max=self.last_position)
        self.columns += 1
        return states[:, -1]

    def keep(self, rows: torch.Tensor) -> None:
        self.positions, self.padding = self.positions[rows], self.padding[rows]
        self.cache.batch_select_indices(rows)


class RecomputedState:
    """Whole texts, padded on the right, read from their first token at every step."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], steps: int):
        device = next(model.parameters()).device
        self.model = model
        self.lengths = torch.tensor([len(p) for p in prompts], device=device)
        capacity = min(int(self.lengths.max()) + steps, positions(model.config))
        self.tokens = torch.zeros(len(prompts), capacity, dtype=torch.long, device=device)
        for row, prompt in zip(self.tokens, prompts, strict=True):
            row[: len(prompt)] = torch.tensor(prompt)

    def start(self) -> torch.Tensor:
        read = self.tokens[:, : int(self.lengths.max())]
        states = decoder(self.model)(input_ids=read, use_cache=False).last_hidden_state
        return output_logits(self.model, states[torch.arange(len(states), device=states.device), self.lengths - 1])

    def advance(self, tokens: torch.Tensor) -> torch.Tensor:
        # Only a row that has ended and not yet left can come to the end of its room.
        places = self.lengths.clamp(max=self.tokens.shape[1] - 1)
        self.tokens[torch.arange(len(tokens), device=tokens.device), places] = tokens
        self.lengths = places + 1
        return self.start()

    def keep(self, rows: torch.Tensor) -> None:
        self.tokens, self.lengths = self.tokens[rows], self.lengths[rows]


def _cache_is_exact(model: PreTrainedModel) -> bool:
    """Whether a padded row of a cached batch gets the logits that it gets when its text is read as a whole."""
    prompts, following = [(1, 2, 3, 4, 5), (2, 1)], torch.tensor([3, 4], device=next(model.parameters()).device)
    try:
        cached, recomputed = CachedState(model, prompts, 1), RecomputedState(model, prompts, 1)
        pairs = [(cached.start(), recomputed.start()), (cached.advance(following), recomputed.advance(following))]
    except Exception:  # an architecture that takes no such mask or positions may stumble over anything
        return False
    bits = 1e-4 if model.dtype == torch.float32 else 5e-2
    return all((a - b).abs().max() <= bits * b.abs().max().clamp(min=1.0) for a, b in pairs)


def _causal(width: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """(width, width), added to attention scores."""
    future = torch.ones(width, width, dtype=torch.bool, device=device).triu_(1)
    return torch.zeros(width, width, dtype=dtype, device=device).masked_fill_(future, _never(dtype))


def _never(dtype: torch.dtype) -> float:
    """The score of what must not be attended to: half the least number, so that two of them still add up."""
    return torch.finfo(dtype).min / 2


def _left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (n, t), and which of them are real; what stands in the padding is never attended to."""
    width = max(len(p) for p in prompts)
    tokens = torch.zeros(len(prompts), width, dtype=torch.long)
    real = torch.zeros_like(tokens, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = torch.tensor(prompt)
        real[row, width - len(prompt) :] = True
    return tokens.to(device), real.to(device)


def _preallocated_cache(model: PreTrainedModel, capacity: int) -> Cache:
    """A key-value cache that is written in place; the stock one is copied whole at every token."""
    from transformers.cache_utils import Cache, DynamicLayer

    class PreallocatedLayer(DynamicLayer):
        def update(self, keys: torch.Tensor, values: torch.Tensor, *args, **kwargs):
            start = self.get_seq_length()
            if not self.is_initialized:
                self.lazy_initialization(keys, values)
                self._room = [x.new_empty((*x.shape[:2], capacity, x.shape[3])) for x in (keys, values)]
            stop = start + keys.shape[-2]
            for room, new in zip(self._room, (keys, values), strict=True):
                room[:, :, start:stop] = new
            self.keys, self.values = (room[:, :, :stop] for room in self._room)
            return self.keys, self.values

        def batch_select_indices(self, indices: torch.Tensor) -> None:
            stop = self.get_seq_length()
            self._room = [room[indices] for room in self._room]
            self.keys, self.values = (room[:, :, :stop] for room in self._room)

    layers = model.config.get_text_config().num_hidden_layers
    return Cache(layers=[PreallocatedLayer() for _ in range(layers)])
