"""The forward passes of MoPe with one block perturbed at a time: which block the leak shows in.

Perturbing block l leaves the blocks below it as they are: their output is computed once for a shard of the records,
held in bounded memory, and every perturbed pass starts from it. A template that prompts share is read once a pass.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from kdleak.attacks.perturbation import (
    Noise,
    PerturbationScores,
    named_weights,
    perturbed,
    record_log_probs,
    shifts,
)
from kdleak.core import distributed
from kdleak.core.progress import Advance
from kdleak.data.batching import Batch, collate, scoring_batches
from kdleak.data.encoding import EncodedRecord
from kdleak.inference.block_forward import block_output, hidden_states_from_block, transformer_blocks
from kdleak.inference.scoring import evaluating, scored_only, without_templates
from kdleak.inference.shared_prefix import prefix_cache, repeated

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel


def block_mope(
    model: PreTrainedModel,
    records: Sequence[EncodedRecord],
    noise: Noise,
    *,
    blocks: Collection[int] | None = None,
    clean: np.ndarray | None = None,
    max_tokens: int = 4096,
    cache_bytes: int = 256 * 2**20,
    progress: Advance | None = None,
) -> list[PerturbationScores]:
    """MoPe of every record with one block perturbed at a time, bottom block first.

    blocks: the blocks to perturb, by their place from the bottom; None: all. The scores of the others are NaN.
    cache_bytes: bound on the hidden states that are held at once (one block's input for a shard of the records).
    progress: advanced by the records of a shard at each block: len(records) times blocks perturbed in all.
    Several processes share the records, and each of them returns the scores of all.
    """
    shard = distributed.shard_by_length([len(r.prompt) + len(r.response) for r in records])
    in_shard = [records[i] for i in shard]
    wanted = range(len(transformer_blocks(model))) if blocks is None else blocks
    drops = np.zeros((len(transformer_blocks(model)), noise.draws, len(records)))
    with evaluating(model):
        for template, members, rest in without_templates(model, in_shard):
            own = [shard[i] for i in members]
            known = None if clean is None else clean[own]
            drops[:, :, own] = _block_drops(
                model, template, rest, noise, wanted, known, max_tokens, cache_bytes, progress
            )
    distributed.all_reduce_sum_(drops)
    return [PerturbationScores(drops[block]) for block in range(len(drops))]


def _block_drops(
    model: PreTrainedModel,
    template: Sequence[int],
    records: Sequence[EncodedRecord],
    noise: Noise,
    wanted: Collection[int],
    clean: np.ndarray | None,
    max_tokens: int,
    cache_bytes: int,
    progress: Advance | None,
) -> np.ndarray:
    """(blocks, draws, n): the falls of `block_mope`. template: what stands before every prompt of `records`."""
    blocks = [named_weights(index, block) for index, block in enumerate(transformer_blocks(model))]
    likelihoods = np.zeros((len(blocks), noise.draws, len(records)))
    likelihoods[[index for index in range(len(blocks)) if index not in wanted]] = np.nan
    reference = np.empty(len(records)) if clean is None else clean
    plain = _Template(model, template)
    for shard in _shards(records, max_tokens, cache_bytes // (4 * model.config.hidden_size)):
        batches = [_batch(model, records, indices) for indices in shard]
        inputs: list[torch.Tensor | None] = [None] * len(batches)
        for index, weights in enumerate(blocks):
            if index:
                inputs = [
                    block_output(model, b, index - 1, s, plain.before(b)) for b, s in zip(batches, inputs, strict=True)
                ]
            if index not in wanted:
                continue
            for draw in range(noise.draws):
                both = list(shifts(weights, noise, draw))
                for sign in noise.signs:
                    with perturbed(weights, both, sign):
                        read = _Template(model, template)  # under this noise
                        for batch, states in zip(batches, inputs, strict=True):
                            log_probs = _log_probs_from(model, batch, index, states, read)
                            likelihoods[index, draw, list(batch.indices)] += log_probs / len(noise.signs)
            if progress is not None:
                progress(sum(len(batch.indices) for batch in batches))
        if clean is None:  # what the topmost block makes of its cached input
            for batch, states in zip(batches, inputs, strict=True):
                reference[list(batch.indices)] = _log_probs_from(model, batch, len(blocks) - 1, states, plain)
    return reference - likelihoods


class _Template:
    """A template as the model, with the weights that it has now, has read it: once for all rows."""

    def __init__(self, model: PreTrainedModel, tokens: Sequence[int]):
        self._cache = prefix_cache(model, tokens) if tokens else None

    def before(self, batch: Batch) -> Cache | None:
        """Keys and values that stand before each row of `batch`."""
        return None if self._cache is None else repeated(self._cache, len(batch.indices))


def _log_probs_from(
    model: PreTrainedModel, batch: Batch, first: int, states: torch.Tensor | None, read: _Template
) -> np.ndarray:
    """(n,) mean log-probs of `batch` from the input `states` of block `first`."""
    return record_log_probs(model, batch, hidden_states_from_block(model, batch, first, states, read.before(batch)))


def _batch(model: PreTrainedModel, records: Sequence[EncodedRecord], indices: Sequence[int]) -> Batch:
    return scored_only(collate(records, indices)).to(next(model.parameters()).device)


def _shards(records: Sequence[EncodedRecord], max_tokens: int, shard_tokens: int) -> Iterator[list[list[int]]]:
    """Batches in groups of at most `shard_tokens` padded tokens, at least one batch each."""
    shard: list[list[int]] = []
    held = 0
    for indices in scoring_batches(records, min(max_tokens, max(1, shard_tokens))):
        size = len(indices) * max(len(records[i].prompt) + len(records[i].response) for i in indices)
        if shard and held + size > shard_tokens:
            yield shard
            shard, held = [], 0
        shard.append(indices)
        held += size
    if shard:
        yield shard
