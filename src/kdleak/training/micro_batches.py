"""A batch in parts: among processes, and for memory (gradient accumulation, bounded by tokens). Both are exact.

A loss is a mean over all targets of the batch, so a part's counts for as many as it has (`Batch.weights`): the
gradients of the parts add up to the batch's, however its rows are divided. (Dropout alone draws other masks.)
"""

from __future__ import annotations

from dataclasses import replace

from kdleak.core import distributed
from kdleak.data.batching import AnyBatch, Batch, packed, row_lengths, select_rows
from kdleak.training.batch_sources import DistillationBatch


def own_part(batch: AnyBatch) -> AnyBatch:
    """What this process does of `batch`, and of the corpus beside it."""
    if distributed.size() == 1:
        return batch
    part = _own_rows(batch)
    if isinstance(batch, DistillationBatch) and batch.corpus is not None:
        return replace(part, corpus=_own_rows(batch.corpus))
    return part


def _own_rows(batch: AnyBatch) -> AnyBatch:
    """This process's rows. Where there are fewer rows than processes, several do the same one, and share its weight."""
    n, size, rank = len(batch.input_ids), distributed.size(), distributed.rank()
    if n >= size:
        return select_rows(batch, distributed.shard_by_length(row_lengths(batch)))
    part = select_rows(batch, [rank % n])
    assert part.whole is not None  # as select_rows leaves a part
    return replace(part, whole=part.whole * len(range(rank % n, size, n)))


def micro_batches(batch: Batch, max_tokens: int | None) -> list[Batch]:
    """Parts of `batch`, of at most `max_tokens` padded tokens each (a longer row is a part of its own), that hold each
    of its rows once. Where it has to be divided, the corpus beside it comes in parts of its own, without other rows.
    """
    corpus = batch.corpus if isinstance(batch, DistillationBatch) else None
    tokens = batch.input_ids.numel() + (0 if corpus is None else corpus.input_ids.numel())
    if max_tokens is None or tokens <= max_tokens:
        return [batch]
    alone = batch if corpus is None else replace(batch, corpus=None)
    parts = [select_rows(alone, rows) for rows in packed(row_lengths(alone), max_tokens)]
    if corpus is not None:
        nothing = select_rows(alone, [])
        parts += [replace(nothing, corpus=part) for part in micro_batches(corpus, max_tokens)]
    return parts
