"""Batches of encoded records: sorted by length, padded on the right, predictions at response positions only.

Under a causal mask nothing attends to what stands to its right, so right padding needs no attention mask and
changes no score; the batches go through the model without one, which keeps attention on its fast causal path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

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
    whole:     of a part of a larger batch, the number of targets that the loss is a mean over; None: this is the whole.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    rows: torch.Tensor
    scored: torch.Tensor
    indices: tuple[int, ...]
    whole: float | None = None

    @property
    def weights(self) -> torch.Tensor | None:
        """(m,) what each target counts in the mean over the whole batch, so that the losses of its parts add up to
        its own; None where this is the whole, and all count the same."""
        if self.whole is None:
            return None
        return torch.full((len(self.targets),), 1 / max(self.whole, 1), device=self.targets.device)

    def to(self, device: torch.device | str) -> Batch:
        columns = (self.input_ids, self.positions, self.targets, self.rows, self.scored)
        input_ids, positions, targets, rows, scored = (t.to(device, non_blocking=True) for t in columns)
        return Batch(input_ids, positions, targets, rows, scored, self.indices, self.whole)


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


AnyBatch = TypeVar("AnyBatch", bound=Batch)


def row_lengths(batch: Batch) -> list[int]:
    """Tokens of each row of `batch` up to its last position that predicts a target; 1 for a row without targets."""
    ends = batch.positions % batch.input_ids.shape[1] + 1
    lengths = torch.ones(len(batch.input_ids), dtype=torch.long, device=ends.device)
    return lengths.scatter_reduce_(0, batch.rows, ends, "amax").tolist()


def select_rows(batch: AnyBatch, rows: Sequence[int]) -> AnyBatch:
    """The part of `batch` that is these of its rows, in this order, with no more padding than they need."""
    by_row = [torch.zeros(0, dtype=torch.long), *((batch.rows.cpu() == row).nonzero()[:, 0] for row in rows)]
    keep = torch.cat(by_row).to(batch.rows.device)
    of_targets = {k: v[keep] for k, v in vars(batch).items() if isinstance(v, torch.Tensor) and k != "input_ids"}
    place = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(f) for f in by_row[1:]], dtype=torch.long))
    columns = batch.positions[keep] % batch.input_ids.shape[1]
    width = int(columns.max()) + 1 if len(columns) else 1
    of_targets |= {"rows": place.to(keep.device), "positions": place.to(keep.device) * width + columns}
    return replace(
        batch,
        input_ids=batch.input_ids[list(rows), :width],
        indices=tuple(batch.indices[row] for row in rows),
        whole=len(batch.targets) if batch.whole is None else batch.whole,
        **of_targets,
    )


def scoring_batches(records: Sequence[EncodedRecord], max_tokens: int) -> Iterator[list[int]]:
    """Index lists that cover every record once, longest first, each at most `max_tokens` padded tokens
    (a single longer record is a batch of its own). Longest first: a batch that does not fit memory fails at once."""
    return packed([len(r.prompt) + len(r.response) - 1 for r in records], max_tokens)


def packed(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """The same for rows of these lengths."""
    batch: list[int] = []
    width = 0
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch and (len(batch) + 1) * width > max_tokens:
            yield batch
            batch = []
        if not batch:
            width = lengths[i]
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
