"""Where the batches of a training come from: fixed records here, what the student writes in `rollouts`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch

from kdleak.core.seeds import derive
from kdleak.data.batching import Batch, collate, epoch_batches, select_rows
from kdleak.data.encoding import EncodedRecord

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class BatchSource(Protocol):
    """Called by the training loop with consecutive steps, from 0 or from the step that `restore` was saved after."""

    steps_per_epoch: int

    def batch(self, model: PreTrainedModel, step: int) -> Batch:
        """The batch of optimiser step `step`; `model` is the student as it stands."""
        ...

    def end_epoch(self, model: PreTrainedModel) -> dict[str, float]:
        """Called after an epoch's last step; returns figures for the history."""
        ...

    def realised(self) -> dict[str, float | None]:
        """Of the whole training so far, what its text came from (`kdleak.distill.mechanism.realised`)."""
        ...

    def state(self) -> dict[str, Any]:
        """What JSON can hold of the progress so far, beyond the step."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""


@dataclass(frozen=True)
class DistillationBatch(Batch):
    """A batch with what a technique adds to it.

    written_by_student: the responses are rollouts, so no cache can know what the teacher says about them.
    corpus:             records for the language-modelling loss of the same step.
    """

    written_by_student: bool = False
    corpus: Batch | None = None

    def to(self, device: torch.device | str) -> DistillationBatch:
        moved = {k: v.to(device, non_blocking=True) for k, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return replace(self, **moved, corpus=self.corpus and self.corpus.to(device))


class FixedBatches:
    """Every record once an epoch, in an order that (seed, epoch) alone decides."""

    def __init__(self, records: Sequence[EncodedRecord], batch_size: int, seed: int):
        self.records, self.batch_size, self.seed = records, batch_size, seed
        self.steps_per_epoch = -(-len(records) // batch_size)
        self._epoch: tuple[int, list[list[int]]] = (-1, [])

    def indices(self, step: int) -> list[int]:
        """Which records the batch of `step` is made of."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = epoch, epoch_batches(self.records, self.batch_size, self.seed, epoch)
        return self._epoch[1][position]

    def batch(self, model: PreTrainedModel | None, step: int) -> Batch:
        return collate(self.records, self.indices(step))

    def end_epoch(self, model: PreTrainedModel) -> dict[str, float]:
        return {}

    def realised(self) -> dict[str, float | None]:
        return {}

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        pass


class PoissonBatches(FixedBatches):
    """Each record is in each batch with probability batch_size / n, whatever the others do (Poisson sampling): batches
    vary in size, and some are empty. (seed, step) alone decides."""

    @property
    def rate(self) -> float:
        """The probability."""
        return min(1.0, self.batch_size / len(self.records))

    def indices(self, step: int) -> list[int]:
        generator = torch.Generator().manual_seed(derive(self.seed, f"poisson/{step}"))
        drawn = torch.rand(len(self.records), generator=generator, dtype=torch.float64)
        return (drawn < self.rate).nonzero()[:, 0].tolist()

    def batch(self, model: PreTrainedModel | None, step: int) -> Batch:
        indices = self.indices(step)
        if not indices:
            return replace(select_rows(collate(self.records, [0]), []), whole=None)
        return collate(self.records, indices)


class WithCorpus:
    """`source`, each batch with one of `corpus` beside it; a corpus that is used up starts again, shuffled anew."""

    def __init__(self, source: BatchSource, corpus: FixedBatches):
        self.source, self.corpus = source, corpus
        self.steps_per_epoch = source.steps_per_epoch
        self.end_epoch, self.realised = source.end_epoch, source.realised
        self.state, self.restore = source.state, source.restore

    def batch(self, model: PreTrainedModel, step: int) -> Batch:
        batch = self.source.batch(model, step)
        if not isinstance(batch, DistillationBatch):
            batch = DistillationBatch(**vars(batch))
        return replace(batch, corpus=self.corpus.batch(None, step))
