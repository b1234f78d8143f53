"""Running a decoder from one of its blocks upwards, for any family, and no further than its predictions need.

The list of blocks is the only thing that differs between GPT-2, OPT and LLaMA. What stands below a block is replaced
by a module that hands out its cached output; the model's own forward does the rest (masks, positions, final norm).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import TYPE_CHECKING

import torch
from torch import nn

from kdleak.core.errors import KdleakError
from kdleak.inference.forward import hidden_states
from kdleak.models.architecture import decoder

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

    from kdleak.data.batching import Batch

#: Where a decoder keeps its blocks: GPT-2; OPT; LLaMA and most later families.
_BLOCK_LISTS = ("h", "decoder.layers", "layers")


def transformer_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The blocks of `model`, bottom first. Raises KdleakError for a family whose blocks are not known."""
    owner, name = _owner(model)
    return getattr(owner, name)


def hidden_from(
    model: PreTrainedModel,
    batch: Batch,
    first: int = 0,
    states: torch.Tensor | None = None,
    past: Cache | None = None,
) -> torch.Tensor:
    """Last hidden states at the response positions (m, hidden_size), computed from block `first` upwards.

    states: (n, t, hidden_size), the input of block `first`; None for `first` = 0, which starts at the embeddings.
    past:   for `first` = 0: keys and values of what every row has read before.
    """
    with _starting_at(model, first, states), _feed_forward_at(model, batch.positions):
        return hidden_states(model, batch, past)


def block_output(model: PreTrainedModel, batch: Batch, block: int, states: torch.Tensor | None) -> torch.Tensor:
    """(n, t, hidden_size): what `block`, any but the topmost, makes of its input `states` (block 0: None)."""
    sink = _Sink()
    with _starting_at(model, block, states), _stopping_after(model, block, sink):
        hidden_states(model, batch)
    return sink.states


class _Source(nn.Module):
    """Stands for the blocks below: gives their output."""

    def __init__(self, states: torch.Tensor):
        super().__init__()
        self.states = states

    def forward(self, hidden_states: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        return self.states


class _Sink(nn.Module):
    """Stands for the blocks above: keeps what reaches them."""

    states: torch.Tensor

    def forward(self, hidden_states: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        self.states = hidden_states
        return hidden_states


@contextlib.contextmanager
def _starting_at(model: PreTrainedModel, first: int, states: torch.Tensor | None) -> Iterator[None]:
    if first == 0:
        yield
        return
    with _blocks_as(model, lambda blocks: [_Source(states)] * first + blocks[first:]):
        yield


@contextlib.contextmanager
def _stopping_after(model: PreTrainedModel, block: int, sink: _Sink) -> Iterator[None]:
    with _blocks_as(model, lambda blocks: blocks[: block + 1] + [sink] * (len(blocks) - block - 1)):
        yield


@contextlib.contextmanager
def _feed_forward_at(model: PreTrainedModel, positions: torch.Tensor) -> Iterator[None]:
    """The topmost block's feed-forward, which no other position reads, runs at the flat `positions` alone; elsewhere
    it gives zero. A family without such a module (OPT) runs as it is."""
    feed_forward = _top_feed_forward(model)
    if feed_forward is None:
        yield
        return
    shape: list[torch.Size] = []

    def select(module: nn.Module, args: tuple[torch.Tensor]) -> torch.Tensor:
        shape.append(args[0].shape)
        return args[0].flatten(0, 1).index_select(0, positions)[None]

    def scatter(module: nn.Module, args: object, output: torch.Tensor | tuple) -> torch.Tensor | tuple:
        chosen, *scores = output if isinstance(output, tuple) else (output,)  # a router's scores may follow
        everywhere = chosen.new_zeros(shape[-1])
        everywhere.flatten(0, 1).index_copy_(0, positions, chosen.reshape(len(positions), -1))
        return (everywhere, *scores) if isinstance(output, tuple) else everywhere

    hooks = [feed_forward.register_forward_pre_hook(select), feed_forward.register_forward_hook(scatter)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _top_feed_forward(model: PreTrainedModel) -> nn.Module | None:
    found = _find_blocks(model)
    return None if found is None else getattr(getattr(*found)[-1], "mlp", None)


@contextlib.contextmanager
def _blocks_as(model: PreTrainedModel, change: Callable[[list], list]) -> Iterator[None]:
    owner, name = _owner(model)
    blocks = getattr(owner, name)
    setattr(owner, name, nn.ModuleList(change(list(blocks))))
    try:
        yield
    finally:
        setattr(owner, name, blocks)


def _owner(model: PreTrainedModel) -> tuple[nn.Module, str]:
    found = _find_blocks(model)
    if found is None:
        name = type(decoder(model)).__name__
        raise KdleakError(f"{name}: its list of transformer blocks is not known to kdleak.inference.block_forward")
    return found


def _find_blocks(model: PreTrainedModel) -> tuple[nn.Module, str] | None:
    """The module that holds the list of blocks, and the list's name there."""
    body = decoder(model)
    for path in _BLOCK_LISTS:
        parent, _, name = path.rpartition(".")
        with contextlib.suppress(AttributeError):
            owner = attrgetter(parent)(body) if parent else body
            if isinstance(getattr(owner, name), nn.ModuleList):
                return owner, name
    return None
