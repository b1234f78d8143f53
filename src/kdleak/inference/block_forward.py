"""Running a decoder from one of its blocks upwards, for any family, and no further than its predictions need.

The list of blocks is the only thing that differs between GPT-2, OPT and LLaMA. What stands below a block is replaced
by a module that hands out its cached output; the model's own forward does the rest (masks, positions, final norm).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import nn

from kdleak.core.errors import KdleakError
from kdleak.inference.forward import hidden_states
from kdleak.models.architecture import decoder, unwrapped

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

    from kdleak.data.batching import Batch

#: Where a decoder keeps its blocks: GPT-2; OPT; LLaMA and most later families.
_BLOCK_LISTS = ("h", "decoder.layers", "layers")


def transformer_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The blocks of `model`, bottom first. Raises KdleakError for a family whose blocks are not known."""
    owner, name = _owner(model)
    return getattr(owner, name)


def hidden_states_from_block(
    model: PreTrainedModel,
    batch: Batch,
    first: int = 0,
    states: torch.Tensor | None = None,
    past: Cache | None = None,
) -> torch.Tensor:
    """Last hidden states at the response positions (m, hidden_size), computed from block `first` upwards.

    states: (n, t, hidden_size), the input of block `first`; None for `first` = 0, which starts at the embeddings.
    past:   keys and values, of all blocks, of what every row has read before.
    """
    with _starting_at(model, first, states), _feed_forward_at(model, batch.positions):
        return hidden_states(model, batch, past)


def block_output(
    model: PreTrainedModel, batch: Batch, block: int, states: torch.Tensor | None, past: Cache | None = None
) -> torch.Tensor:
    """(n, t, hidden_size): what `block`, any but the topmost, makes of its input `states` (block 0: None). past: as
    above."""
    sink = _Sink(torch.empty(0), _blocks_give_tuples(model))  # what it is for is what will reach it
    with _starting_at(model, block, states), _stopping_after(model, block, sink):
        hidden_states(model, batch, past)
    return sink.states


class _Source(nn.Module):
    """Stands for a block below: gives the output of all of them, a tuple where the family's blocks give tuples."""

    def __init__(self, states: torch.Tensor, as_tuple: bool):
        super().__init__()
        self.states, self.as_tuple = states, as_tuple

    def forward(self, hidden_states: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor | tuple:
        return (self.states,) if self.as_tuple else self.states


class _Sink(_Source):
    """Stands for a block above: keeps what reaches it, and passes it on."""

    def forward(self, hidden_states: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor | tuple:
        self.states = hidden_states
        return super().forward(hidden_states)


@contextlib.contextmanager
def _starting_at(model: PreTrainedModel, first: int, states: torch.Tensor | None) -> Iterator[None]:
    if first == 0:
        yield
        return
    assert states is not None  # a block above the lowest has an input
    source = _Source(states, _blocks_give_tuples(model))
    with _blocks_as(model, lambda blocks: [source] * first + blocks[first:]):
        yield


@contextlib.contextmanager
def _stopping_after(model: PreTrainedModel, block: int, sink: _Sink) -> Iterator[None]:
    with _blocks_as(model, lambda blocks: blocks[: block + 1] + [sink] * (len(blocks) - block - 1)):
        yield


@contextlib.contextmanager
def _blocks_as(model: PreTrainedModel, change: Callable[[list], list]) -> Iterator[None]:
    owner, name = _owner(model)
    blocks = getattr(owner, name)
    setattr(owner, name, nn.ModuleList(change(list(blocks))))
    try:
        yield
    finally:
        setattr(owner, name, blocks)


@contextlib.contextmanager
def _feed_forward_at(model: PreTrainedModel, positions: torch.Tensor) -> Iterator[None]:
    """The topmost block's feed-forward, which no other position reads, runs at the flat `positions` alone; elsewhere
    it gives zero. A family whose feed-forward cannot be run so (OPT has no such module) runs as it is."""
    feed_forward = _narrowable(model)
    with contextlib.nullcontext() if feed_forward is None else _narrowed(feed_forward, positions):
        yield


@contextlib.contextmanager
def _narrowed(feed_forward: nn.Module, positions: torch.Tensor) -> Iterator[None]:
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


#: What short passes have shown of a model: whether its feed-forward can be narrowed, and whether blocks give tuples.
_narrow: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
_tuples: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def _narrowable(model: PreTrainedModel) -> nn.Module | None:
    """The topmost block's feed-forward if running it at some positions alone changes nothing there."""
    place = _find_blocks(model)
    feed_forward = None if place is None else getattr(getattr(*place)[-1], "mlp", None)
    if feed_forward is None:
        return None
    inner = unwrapped(model)
    if inner not in _narrow:
        _narrow[inner] = _is_exact_narrowed(model, feed_forward)
    return feed_forward if _narrow[inner] else None


def _is_exact_narrowed(model: PreTrainedModel, feed_forward: nn.Module) -> bool:
    ids = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]], device=next(model.parameters()).device)
    positions = torch.tensor([2, 5, 6], device=ids.device)
    full = _short_pass(model, ids).flatten(0, 1)[positions]
    try:
        with _narrowed(feed_forward, positions):
            narrow = _short_pass(model, ids).flatten(0, 1)[positions]
    except Exception:  # a feed-forward of other arguments may stumble over anything
        return False
    return bool((full - narrow).abs().max() <= 1e-3 * full.abs().max())


def _blocks_give_tuples(model: PreTrainedModel) -> bool:
    inner = unwrapped(model)
    if inner not in _tuples:
        outputs: list[object] = []
        hook = transformer_blocks(model)[0].register_forward_hook(lambda *call: outputs.append(call[-1]))
        try:
            _short_pass(model, torch.tensor([[1, 2]], device=next(model.parameters()).device))
        finally:
            hook.remove()
        _tuples[inner] = isinstance(outputs[0], tuple)
    return _tuples[inner]


@torch.no_grad()
def _short_pass(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    return decoder(model)(input_ids=ids, use_cache=False).last_hidden_state


def _owner(model: PreTrainedModel) -> tuple[nn.Module, str]:
    place = _find_blocks(model)
    if place is None:
        name = type(decoder(model)).__name__
        raise KdleakError(f"{name}: its list of transformer blocks is not known to kdleak.inference.block_forward")
    return place


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
