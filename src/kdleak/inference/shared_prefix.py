"""What many prompts begin with (an instruction template) is read once, and its keys and values are shared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch

from kdleak.models.architecture import decoder

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel
    from transformers.modeling_outputs import BaseModelOutputWithPast


def prefix_cache(model: PreTrainedModel, prefix: Sequence[int]) -> DynamicCache:
    """Keys and values of one row that reads `prefix`."""
    return cast("DynamicCache", _read(model, prefix).past_key_values)


def repeated(cache: DynamicCache, n: int) -> DynamicCache:
    """`n` rows that all have read what the one row of `cache` has."""
    from transformers import DynamicCache

    rows = DynamicCache()
    layers: Any = cache.layers  # of keys and values: `keeps_all_keys` has looked
    for i, layer in enumerate(layers):
        rows.update(layer.keys.expand(n, -1, -1, -1), layer.values.expand(n, -1, -1, -1), i)
    return rows


def shared_prefixes(prompts: Sequence[Sequence[int]], shortest: int = 16) -> list[tuple[Sequence[int], list[int]]]:
    """Prompts grouped by template: (prefix that all of a group share, indices of the group), in order of appearance.

    Prompts that agree in their first `shortest` tokens share a group. A prefix leaves every prompt of its group at
    least one token. Prompts that share none are one group, the last, whose prefix is empty.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, prompt in enumerate(prompts):
        groups.setdefault(tuple(prompt[:shortest]), []).append(i)
    shared: list[tuple[Sequence[int], list[int]]] = []
    others: list[int] = []
    for members in groups.values():
        # What the first and the last in alphabetical order share, all between them share too.
        ordered = [tuple(prompts[i]) for i in members]
        first, last = min(ordered), max(ordered)
        n = min(common_prefix(first, last), min(len(prompts[i]) for i in members) - 1)
        if len(members) > 1 and n >= shortest:
            shared.append((first[:n], members))
        else:
            others += members
    return [*shared, ((), sorted(others))] if others else shared


def keeps_all_keys(model: PreTrainedModel) -> bool:
    """Whether keys and values of all that was read say all there is of a prefix: no layer of `model` drops those that
    leave a sliding window, or keeps a state instead."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    cache = getattr(_read(model, [1, 2]), "past_key_values", None)
    return isinstance(cache, DynamicCache) and all(type(layer) is DynamicLayer for layer in cache.layers)


def _read(model: PreTrainedModel, tokens: Sequence[int]) -> BaseModelOutputWithPast:
    """What the decoder gives for one row of `tokens`, its cache included."""
    ids = torch.tensor([list(tokens)], device=next(model.parameters()).device)
    with torch.no_grad():
        return decoder(model)(input_ids=ids, use_cache=True)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    n = 0
    while n < len(a) and n < len(b) and a[n] == b[n]:
        n += 1
    return n
