"""Student-written data: rollouts, the buffer that keeps them, and the rules that say when a step uses them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

import torch

from kdleak.core.seeds import derive
from kdleak.data.batching import Batch, collate
from kdleak.data.encoding import EncodedRecord
from kdleak.distill.mechanism import Tally
from kdleak.inference.generation import Sampling, TeacherMixture, generate
from kdleak.inference.release import Release, identity
from kdleak.training.batch_sources import DistillationBatch, FixedBatches

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def continued(record: EncodedRecord, response: tuple[int, ...], eos_id: int) -> EncodedRecord:
    """`record` with another response to its prompt."""
    ended = response[-1:] == (eos_id,)
    return replace(record, response=response, n_scored=len(response) - ended)


def to_row(record: EncodedRecord) -> list:
    """`record` as JSON can hold it."""
    return [record.record_id, list(record.prompt), list(record.response), record.n_scored]


def from_row(row: list) -> EncodedRecord:
    """The record that `to_row` made a row of."""
    record_id, prompt, response, n_scored = row
    return EncodedRecord(record_id, tuple(prompt), tuple(response), n_scored)


@dataclass(frozen=True)
class Rollouts:
    """Writes responses to the prompts of records, each from a random stream of (seed, step, record).

    `release` stands between the writing model's logits and the softmax.
    """

    sampling: Sampling
    eos_id: int
    seed: int
    mixture: TeacherMixture | None = None
    release: Release = identity

    def write(self, model: PreTrainedModel, records: Sequence[EncodedRecord], step: int) -> list[EncodedRecord]:
        """`records` with responses that `model` samples."""
        streams = [derive(self.seed, f"rollout/{step}/{r.record_id}") for r in records]
        prompts = [r.prompt for r in records]
        responses = generate(model, prompts, self.sampling, self.eos_id, streams, self.mixture, self.release)
        return [continued(r, response, self.eos_id) for r, response in zip(records, responses, strict=True)]


class ReplayBuffer:
    """The latest `capacity` rollouts, each with the step at which it was written."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self._texts: list[tuple[int, EncodedRecord]] = []

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def full(self) -> bool:
        return len(self) == self.capacity

    def add(self, records: Sequence[EncodedRecord], step: int) -> None:
        """Take `records` in; the oldest make room."""
        self._texts = [*self._texts, *((step, r) for r in records)][-self.capacity :]

    def sample(self, n: int, seed: int) -> list[tuple[int, EncodedRecord]]:
        """`n` different texts, uniformly (all of them where there are no more): (step, record)."""
        return random.Random(seed).sample(self._texts, min(n, len(self)))

    def state(self) -> list[list]:
        return [[step, to_row(r)] for step, r in self._texts]

    def restore(self, state: list[list]) -> None:
        self._texts = [(step, from_row(row)) for step, row in state]


class Origin(Enum):
    """Who wrote the responses of a step's batch, and when."""

    FIXED = "fixed"
    FRESH = "fresh"
    REPLAYED = "replayed"
    THROUGH_BUFFER = "through buffer"  # fresh ones go into the buffer, the batch is drawn from it


class Share(Protocol):
    """A rule for the share of student-written batches."""

    def origin(self, r: float, progress: float) -> Origin:
        """The origin of a batch, for `r` uniform in [0, 1) and the share of the steps done, this one included."""
        ...

    def begin(self, model: PreTrainedModel) -> None:
        """Called before the first step."""

    def end_epoch(self, model: PreTrainedModel) -> dict[str, float]:
        """Adapt to how the student does; returns figures for the history."""
        ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class ConstantShare:
    """Student-written with probability `alpha`: 1 in ImitKD (Lin et al. 2020), ½ in GKD (Agarwal et al. 2024)."""

    alpha: float
    through_buffer: bool = False

    def origin(self, r: float, progress: float) -> Origin:
        if r >= self.alpha:
            return Origin.FIXED
        return Origin.THROUGH_BUFFER if self.through_buffer else Origin.FRESH

    def begin(self, model: PreTrainedModel) -> None:
        pass

    def end_epoch(self, model: PreTrainedModel) -> dict[str, float]:
        return {}

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        pass


class RolloutBatches:
    """The prompts of fixed records in their usual order; who wrote the responses is drawn anew at each step."""

    def __init__(
        self,
        fixed: FixedBatches,
        share: Share,
        rollouts: Rollouts,
        steps: int,
        buffer: ReplayBuffer | None = None,
        drop_first_token: bool = False,
    ):
        """`steps` of the whole training. `drop_first_token` reproduces the published code, whose rollouts never distil
        their first token."""
        self.fixed, self.share, self.rollouts, self.buffer = fixed, share, rollouts, buffer
        self.drop_first_token = drop_first_token
        self.steps_per_epoch, self._steps = fixed.steps_per_epoch, steps
        #: Of the latest batch.
        self.origin = Origin.FIXED
        self._written, self._batches = 0, 0
        self._tally = Tally()

    def batch(self, model: PreTrainedModel, step: int) -> DistillationBatch:
        if step == 0:
            self.share.begin(model)
        indices = self.fixed.indices(step)
        r = random.Random(derive(self.rollouts.seed, f"origin/{step}")).random()
        origin = self.share.origin(r, (step + 1) / self._steps)
        if origin is Origin.REPLAYED and not (self.buffer and self.buffer.full):
            origin = Origin.FRESH
        self.origin = origin
        self._batches += 1
        if origin is Origin.FIXED:
            batch = collate(self.fixed.records, indices)
            self._tally.add(len(batch.targets))
            return DistillationBatch(**vars(batch))
        self._written += 1
        texts = self._student_text(origin, model, [self.fixed.records[i] for i in indices], step)
        batch = collate([record for _, record in texts], range(len(texts)))
        if self.drop_first_token:
            batch = without_first_tokens(batch)
        self._tally.add(len(batch.targets), [step - written for written, _ in texts])
        return DistillationBatch(**vars(batch), written_by_student=True)

    def _student_text(
        self, origin: Origin, model: PreTrainedModel, records: list[EncodedRecord], step: int
    ) -> list[tuple[int, EncodedRecord]]:
        """(step of writing, record) of the texts of a batch."""
        if origin is Origin.REPLAYED:
            return self._replayed(len(records), step)
        fresh = self.rollouts.write(model, records, step)
        self._tally.rounds += 1
        if self.buffer is not None:
            self.buffer.add(fresh, step)
        return self._replayed(len(records), step) if origin is Origin.THROUGH_BUFFER else [(step, r) for r in fresh]

    def _replayed(self, n: int, step: int) -> list[tuple[int, EncodedRecord]]:
        assert self.buffer is not None  # a share that replays comes with one
        return self.buffer.sample(n, derive(self.rollouts.seed, f"replay/{step}"))

    def end_epoch(self, model: PreTrainedModel) -> dict[str, float]:
        figures = {"student_written": self._written / max(1, self._batches)}
        self._written, self._batches = 0, 0
        return figures | self.share.end_epoch(model)

    def realised(self) -> dict[str, float | None]:
        return self._tally.figures() | {"threshold": self.share.state().get("threshold")}

    def state(self) -> dict[str, Any]:
        return {
            "counts": [self._written, self._batches],
            "tally": vars(self._tally),
            "share": self.share.state(),
            "buffer": [] if self.buffer is None else self.buffer.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._written, self._batches = state["counts"]
        self._tally = Tally(**state["tally"])
        self.share.restore(state["share"])
        if self.buffer is not None:
            self.buffer.restore(state["buffer"])


def without_first_tokens(batch: Batch) -> Batch:
    """`batch` without the positions that predict the first token of each response."""
    later = torch.ones_like(batch.scored)
    later[0] = False
    later[1:] = batch.rows[1:] == batch.rows[:-1]
    return replace(
        batch,
        positions=batch.positions[later],
        targets=batch.targets[later],
        rows=batch.rows[later],
        scored=batch.scored[later],
    )
