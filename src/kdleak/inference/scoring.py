"""Token statistics of many records in one forward pass each, with full logits never held at once.

Records go through the model in length-sorted batches; the output head runs on the scored response positions
alone, a chunk of them at a time, and each chunk of logits is consumed in place before the next one is made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from kdleak.core import distributed
from kdleak.core.progress import Advance
from kdleak.data.batching import Batch, collate, scoring_batches
from kdleak.data.encoding import EncodedRecord
from kdleak.inference.block_forward import hidden_states_from_block
from kdleak.inference.shared_prefix import keeps_all_keys, prefix_cache, repeated, shared_prefixes
from kdleak.inference.token_statistics import TokenStatistics
from kdleak.models.output_head import output_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Bytes of fp32 logits that exist at once: large enough to keep the head's matrix product efficient,
#: small enough that the passes over the vocabulary that follow find most of them in the processor's cache.
CHUNK_BYTES = 4 * 2**20
_MIN_CHUNK_ROWS = 64


def token_statistics(
    model: PreTrainedModel,
    records: Sequence[EncodedRecord],
    *,
    max_tokens: int = 4096,
    progress: Advance | None = None,
) -> TokenStatistics:
    """Statistics of every scored response token of `records` under `model`, in the order of `records`.

    max_tokens: padded tokens of one batch (memory, not results, depends on it).
    progress:   advanced by the records of each batch.
    Several processes share the records, and each of them returns the statistics of all.
    """
    shard = distributed.shard_by_length([len(r.prompt) + len(r.response) for r in records])
    records_here = [records[i] for i in shard]
    offsets = np.concatenate([[0], np.cumsum([r.n_scored for r in records], dtype=np.int64)])
    total = int(offsets[-1])
    columns = {name: np.zeros(total, np.float32) for name in ("log_prob", "mean", "std")}
    columns |= {"missed": np.zeros(total, np.int32), "argmax": np.zeros(total, np.int32)}
    with evaluating(model):
        for batch, hidden in read_responses(model, records_here, max_tokens):
            where = _destinations(offsets, [shard[i] for i in batch.indices])
            start = 0
            for chunk in head_chunks(model, hidden):
                rows = slice(start, start + len(chunk))
                for column, values in zip(columns.values(), logit_statistics(chunk, batch.targets[rows]), strict=True):
                    column[where[rows]] = values.cpu().numpy()
                start = rows.stop
            if progress is not None:
                progress(len(batch.indices))
    distributed.all_reduce_sum_(*columns.values())
    columns["missed"] = columns["missed"].astype(bool)
    return TokenStatistics(np.array([r.record_id for r in records], dtype=str), offsets, **columns)


def read_responses(
    model: PreTrainedModel, records: Sequence[EncodedRecord], max_tokens: int
) -> Iterator[tuple[Batch, torch.Tensor]]:
    """Every record once, in batches of at most `max_tokens` padded tokens: the batch, reduced to positions whose target
    is text, and its hidden states (m, hidden_size). A template that prompts share is read once, not in every row.

    `indices` of a batch are of `records`; its `input_ids` lack the template.
    """
    device = next(model.parameters()).device
    for prefix, members, rest in without_templates(model, records):
        past = prefix_cache(model, prefix) if prefix else None
        for indices in scoring_batches(rest, max_tokens):
            batch = scored_only(collate(rest, indices)).to(device)
            read = None if past is None else repeated(past, len(indices))
            yield (
                replace(batch, indices=tuple(members[i] for i in indices)),
                hidden_states_from_block(model, batch, past=read),
            )


def without_templates(
    model: PreTrainedModel, records: Sequence[EncodedRecord]
) -> Iterator[tuple[Sequence[int], list[int], list[EncodedRecord]]]:
    """Records by the template that their prompts share: its tokens, the records' indices, the records without it. One
    group without a template where keys and values of the past do not say all (`keeps_all_keys`)."""
    one_group = [((), list(range(len(records))))]
    groups = shared_prefixes([r.prompt for r in records]) if keeps_all_keys(model) else one_group
    for prefix, members in groups:
        yield prefix, members, [replace(records[i], prompt=records[i].prompt[len(prefix) :]) for i in members]


def logit_statistics(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """(log_prob, mean, std, missed, argmax), each (m,), of fp32 `logits` (m, vocabulary), which are overwritten.

    With z the logits less their maximum, S = sum exp z and <.> the mean under p = exp(z) / S:
    log p(v) = z_v - log S, mean = <z> - log S, std = sqrt <(z - <z>)^2>; the second moment is taken about the
    mean, since a difference of two large moments would lose it in fp32. Two vocabulary-sized buffers in all.
    """
    highest, argmax = logits.max(-1)
    z = logits.sub_(highest[:, None])
    target = z.gather(-1, targets[:, None])
    weights = z.exp()
    scale = weights.sum(-1)
    centre = torch.linalg.vecdot(weights, z) / scale
    spread = torch.linalg.vecdot(weights, z.sub_(centre[:, None]).square_()) / scale
    log_scale = scale.log()
    return target[:, 0] - log_scale, centre - log_scale, spread.sqrt(), argmax != targets, argmax.int()


def target_log_probs(model: PreTrainedModel, batch: Batch, hidden: torch.Tensor) -> torch.Tensor:
    """(m,) log-prob of each target of `batch`, given its hidden states (m, hidden_size): one pass less than
    `logit_statistics`, for callers that need the loss alone."""
    pieces, start = [], 0
    for chunk in head_chunks(model, hidden):
        targets = batch.targets[start : start + len(chunk), None]
        pieces.append(chunk.gather(-1, targets)[:, 0] - chunk.logsumexp(-1))
        start += len(chunk)
    return torch.cat(pieces) if pieces else hidden.new_zeros(0, dtype=torch.float32)


def head_chunks(model: PreTrainedModel, hidden: torch.Tensor) -> Iterator[torch.Tensor]:
    """fp32 logits (rows, vocabulary) of consecutive rows of `hidden` (m, hidden_size), the caller's to overwrite."""
    head = output_head(model)
    rows = max(_MIN_CHUNK_ROWS, CHUNK_BYTES // (4 * len(head.weight)))
    for piece in hidden.split(rows):
        if len(piece):
            yield head(piece)


def scored_only(batch: Batch) -> Batch:
    """`batch` with its positions reduced to those whose target is text."""
    keep = batch.scored
    return replace(
        batch, positions=batch.positions[keep], targets=batch.targets[keep], rows=batch.rows[keep], scored=keep[keep]
    )


@contextlib.contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Dropout and gradients off inside; the model's mode is restored."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def _destinations(offsets: np.ndarray, indices: Sequence[int]) -> np.ndarray:
    """Where the scored tokens of `records[i] for i in indices` belong in the ragged columns."""
    return np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in indices])
