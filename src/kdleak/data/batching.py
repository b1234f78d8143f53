"""Batches of encoded records: sorted by length, padded on the right, predictions at response positions only.

Under a causal mask nothing attends to what stands to its right, so right padding needs no attention mask and
changes no score; the batches go through the model without one, which keeps attention on its fast causal path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from kdleak.data.encoding import EncodedRecord


@dataclass(frozen=True)
class Batch:
    """`n` records as one forward pass.

    input_ids: (n, t) token ids, right-padded; the last token of a record is a target only.
    positions: (m,) flat indices into (n * t): the positions whose logits predict a response token, record by record.
    targets:   (m,) the predicted token ids.
    rows:      (m,) which record of the batch each position belongs to.
    scored:    (m,) whether the target is text (True) or the closing EOS (False).
    indices:   indices of the records in the sequence that was batched.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    rows: torch.Tensor
    scored: torch.Tensor
    indices: tuple[int, ...]

    def to(self, device: torch.device | str) -> Batch:
        moved = (
            t.to(device, non_blocking=True)
            for t in (self.input_ids, self.positions, self.targets, self.rows, self.scored)
        )
        return Batch(*moved, self.indices)


def collate(records: Sequence[EncodedRecord], indices: Sequence[int], pad_id: int = 0) -> Batch:
    """One batch of `records[i] for i in indices`. `pad_id` is never attended to by a real token nor scored."""
    chosen = [records[i] for i in indices]
    width = max(len(r.prompt) + len(r.response) for r in chosen) - 1
    input_ids = torch.full((len(chosen), width), pad_id, dtype=torch.long)
    positions, targets, rows, scored = [], [], [], []
    for row, r in enumerate(chosen):
        tokens = r.prompt + r.response
        input_ids[row, : len(tokens) - 1] = torch.tensor(tokens[:-1])
        start = row * width + len(r.prompt) - 1
        positions.extend(range(start, start + len(r.response)))
        targets.extend(r.response)
        rows.extend([row] * len(r.response))
        scored.extend(i < r.n_scored for i in range(len(r.response)))
    return Batch(
        input_ids,
        torch.tensor(positions),
        torch.tensor(targets),
        torch.tensor(rows),
        torch.tensor(scored),
        tuple(indices),
    )


def scoring_batches(records: Sequence[EncodedRecord], max_tokens: int) -> Iterator[list[int]]:
    """Index lists that cover every record once, longest first, each at most `max_tokens` padded tokens
    (a single longer record is a batch of its own). Longest first: a batch that does not fit memory fails at once."""
    order = sorted(range(len(records)), key=lambda i: (-len(records[i].prompt) - len(records[i].response), i))
    batch: list[int] = []
    width = 0
    for i in order:
        if batch and (len(batch) + 1) * width > max_tokens:
            yield batch
            batch = []
        if not batch:
            width = len(records[i].prompt) + len(records[i].response) - 1
        batch.append(i)
    if batch:
        yield batch


def epoch_batches(
    records: Sequence[EncodedRecord], batch_size: int, seed: int, epoch: int, window: int = 8
) -> list[list[int]]:
    """Index lists of one training epoch: a shuffle by (seed, epoch), then records of like length put together
    inside windows of `window` batches, then the batches shuffled. Each record appears once."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(records), generator=generator).tolist()
    batches = []
    for start in range(0, len(order), batch_size * window):
        block = order[start : start + batch_size * window]
        block.sort(key=lambda i: len(records[i].prompt) + len(records[i].response))
        batches.extend(block[i : i + batch_size] for i in range(0, len(block), batch_size))
    shuffle = torch.randperm(len(batches), generator=generator).tolist()
    return [batches[i] for i in shuffle]
