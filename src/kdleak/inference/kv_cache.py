"""A key-value cache in which every row has its own length.

The caches of `transformers` append one column for the whole batch, so rows of unequal length need padding on the
left. Here a new token's keys and values go to the column of the token's own position: rows stay right-padded, a
position is a column, and a rejected token is simply written over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from transformers import Cache

from kdleak.inference.forward import decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.modeling_outputs import BaseModelOutputWithPast


class RowCache(Cache):
    """Keys and values of `n` rows, one tensor (n, heads, columns, head_size) a layer each.

    Columns from a row's length on hold rubbish (padding, rejected tokens), which `decode` masks.
    """

    def __init__(self, keys: list[torch.Tensor], values: list[torch.Tensor]):
        super().__init__(layers=[])
        self.keys = keys
        self.values = values
        self._rows = self._positions = torch.empty(0, dtype=torch.long)
        self._width = 0

    @property
    def columns(self) -> int:
        return self.keys[0].shape[2]

    @classmethod
    def of(cls, prefilled: Cache) -> RowCache:
        """The cache that a right-padded forward pass left behind."""
        return cls([layer.keys for layer in prefilled.layers], [layer.values for layer in prefilled.layers])

    @classmethod
    def join(cls, parts: Sequence[RowCache], room: int) -> RowCache:
        """The rows of `parts` one after the other, with `room` columns for tokens to come."""
        layers = range(len(parts[0].keys))
        keys = [_stack([part.keys[i] for part in parts], room) for i in layers]
        values = [_stack([part.values[i] for part in parts], room) for i in layers]
        return cls(keys, values)

    def select(self, rows: torch.Tensor, columns: int | None = None) -> RowCache:
        """A copy of the rows of these indices, in that order; of their first `columns` where that is given."""
        return RowCache(
            [k[:, :, :columns].index_select(0, rows) for k in self.keys],
            [v[:, :, :columns].index_select(0, rows) for v in self.values],
        )

    def write_at(self, positions: torch.Tensor) -> int:
        """The next forward pass writes row i at columns positions[i]; returns how many columns attention then reads.

        positions: (n, w)."""
        self._rows = torch.arange(len(positions), device=positions.device)[:, None]
        self._positions = positions
        self._width = int(positions.max()) + 1
        return self._width

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args, **kwargs):
        """Called by the attention of layer `layer_idx` with the (n, heads, w, head_size) of the new tokens."""
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        keys[self._rows, :, self._positions] = key_states.transpose(1, 2)
        values[self._rows, :, self._positions] = value_states.transpose(1, 2)
        return keys[:, :, : self._width], values[:, :, : self._width]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._width - self._positions.shape[-1]


def decode(model: PreTrainedModel, cache: RowCache, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Hidden states (n, w, hidden_size) of w more tokens a row: `tokens` (n, w) at `positions` (n, w), each of which
    sees the columns up to its own."""
    return read_at(model, cache, tokens, positions, cache.write_at(positions)).last_hidden_state


def read_at(
    model: PreTrainedModel, cache: Cache, tokens: torch.Tensor, positions: torch.Tensor, columns: int
) -> BaseModelOutputWithPast:
    """The decoder's pass over `tokens` (n, w) after what `cache` holds, which then has `columns`; a token at a position
    sees the columns up to that. positions: (n, w), or (1, w) where they are the same in all rows."""
    unseen = torch.arange(columns, device=positions.device) > positions[..., None]
    # An additive 4-D mask is the one form that both eager and SDPA attention take as it is.
    mask = torch.zeros(unseen.shape, dtype=model.dtype, device=positions.device)
    mask.masked_fill_(unseen, torch.finfo(model.dtype).min)
    return decoder(model)(
        input_ids=tokens,
        position_ids=positions,
        attention_mask=mask[:, None],
        past_key_values=cache,
        use_cache=True,
    )


def _stack(parts: Sequence[torch.Tensor], room: int) -> torch.Tensor:
    """(n_1 + n_2 + …, heads, widest + room, head_size)."""
    rows, columns = sum(p.shape[0] for p in parts), max(p.shape[2] for p in parts)
    stacked = parts[0].new_empty(rows, parts[0].shape[1], columns + room, parts[0].shape[3])
    start = 0
    for part in parts:
        place = stacked[start : start + part.shape[0]]
        place[:, :, : part.shape[2]] = part
        # Zeros, not rubbish: a NaN would pass through the mask.
        place[:, :, part.shape[2] :] = 0
        start += part.shape[0]
    return stacked
