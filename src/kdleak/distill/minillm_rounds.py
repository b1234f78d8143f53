"""Rounds of MiniLLM: rollouts from the mixture of student and teacher, scored once, trained on for a few epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from kdleak.core import distributed
from kdleak.core.seeds import derive
from kdleak.data.batching import Batch, collate, scoring_batches
from kdleak.data.encoding import EncodedRecord
from kdleak.distill.mechanism import Tally
from kdleak.distill.minillm import PolicyBatch, future_returns, published_advantages, target_log_probs, whitened
from kdleak.distill.rollouts import Rollouts, from_row, to_row
from kdleak.distill.teacher_signal import TeacherSignal
from kdleak.inference.forward import hidden_states
from kdleak.models.output_head import output_logits
from kdleak.training.batch_sources import FixedBatches
from kdleak.training.chunked_loss import CHUNK

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kdleak.distill.methods.minillm import MiniLLM


@dataclass(frozen=True)
class _Scored:
    """A rollout and its tokens' log q, q/p̃ and rewards, as lists so that JSON can hold them exactly."""

    record: EncodedRecord
    log_probs: list[float]
    importance: list[float]
    rewards: list[float]


class PolicyBatches:
    """Each round rolls out the next prompts with the student as it stands, then trains on them for a while."""

    def __init__(
        self,
        records: Sequence[EncodedRecord],
        batch_size: int,
        rollouts: Rollouts,
        signal: TeacherSignal,
        options: MiniLLM,
        batch_tokens: int,
        published: bool = False,
        precision: str = "fp32",
    ):
        """`rollouts` must sample from the mixture of student and teacher with `options.teacher_share`. `published`:
        advantages are those of the published code, made of each mini-batch. `precision`: of the updates' forward
        passes, in which rollouts are scored as well, so that a ratio starts at 1."""
        self.published, self._half = published, precision == "bf16"
        self._tally = Tally()
        self.rollouts, self.signal, self.options, self.batch_tokens = rollouts, signal, options, batch_tokens
        self.batch_size = batch_size
        self.prompts = FixedBatches(records, options.rollouts, derive(rollouts.seed, "prompts"))
        self.steps_per_epoch = -(-len(records) // batch_size)
        self._round, self._begun, self._ends = -1, 0, 0
        self._scored: list[_Scored] = []
        self._inner: FixedBatches | None = None
        self._seen: list[float] = []

    def batch(self, model: PreTrainedModel, step: int) -> PolicyBatch:
        if step >= self._ends:
            self._begin_round(model, step)
        assert self._inner is not None  # a round has begun
        indices = self._inner.indices(step - self._begun)
        scored = [self._scored[i] for i in indices]
        advantages = self._advantages_of(indices)
        plain = collate([s.record for s in scored], range(len(scored)))
        self._tally.add(len(plain.targets), [step - self._begun] * len(scored))
        return PolicyBatch(
            **vars(plain),
            written_by_student=True,
            log_probs=_joined([s.log_probs for s in scored]),
            importance=_joined([s.importance for s in scored]),
            advantages=torch.cat(advantages),
        )

    def _advantages_of(self, indices: Sequence[int]) -> list[torch.Tensor]:
        if not self.published:
            return [self._advantages[i] for i in indices]
        return published_advantages([torch.tensor(self._scored[i].rewards) for i in indices], self.options.discount)

    def _begin_round(self, model: PreTrainedModel, step: int) -> None:
        self._round += 1
        self._tally.rounds += 1
        records = [self.prompts.records[i] for i in self.prompts.indices(self._round)]
        written = [r for r in self.rollouts.write(model, records, self._round) if r.response]
        with torch.autocast(next(model.parameters()).device.type, torch.bfloat16, enabled=self._half):
            self._scored = score_rollouts(model, self.signal, written, self.options, self.batch_tokens)
        self._begun = step
        self._arrange()
        weights = _joined([s.importance for s in self._scored])
        rewards = _joined([s.rewards for s in self._scored])
        lengths = [len(s.rewards) for s in self._scored]
        self._seen = [weights.mean().item(), rewards.mean().item(), sum(lengths) / len(lengths)]

    def _arrange(self) -> None:
        """Order the round's batches and whiten its advantages; the final tokens, which nothing follows, have none."""
        seed = derive(self.rollouts.seed, f"round/{self._round}")
        self._inner = FixedBatches([s.record for s in self._scored], self.batch_size, seed)
        self._ends = self._begun + self._inner.steps_per_epoch * self.options.inner_epochs
        returns = [future_returns(torch.tensor(s.rewards), self.options.discount) for s in self._scored]
        followed = whitened(torch.cat([r[:-1] for r in returns])).split([len(r) - 1 for r in returns])
        self._advantages = [torch.cat([a, torch.zeros(1)]) for a in followed]

    def end_epoch(self, model: PreTrainedModel) -> dict[str, float]:
        return dict(zip(("importance", "reward", "rollout_tokens"), self._seen, strict=True))

    def realised(self) -> dict[str, float | None]:
        return self._tally.figures()

    def state(self) -> dict[str, Any]:
        rows = [[to_row(s.record), s.log_probs, s.importance, s.rewards] for s in self._scored]
        return {
            "round": self._round,
            "begun": self._begun,
            "seen": self._seen,
            "rollouts": rows,
            "tally": vars(self._tally),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._round, self._begun, self._seen = state["round"], state["begun"], state["seen"]
        self._scored = [_Scored(from_row(row), *columns) for row, *columns in state["rollouts"]]
        self._tally = Tally(**state["tally"])
        self._arrange()


@torch.no_grad()
def score_rollouts(
    student: PreTrainedModel,
    signal: TeacherSignal,
    records: Sequence[EncodedRecord],
    options: MiniLLM,
    batch_tokens: int,
) -> list[_Scored]:
    """log q, q/p̃ and reward of every token of `records`, under the student (dropout off) and the teacher."""
    shard = distributed.shard_by_length([len(r.prompt) + len(r.response) for r in records])
    sharded, lengths = [records[i] for i in shard], [len(r.response) for r in records]
    columns = torch.zeros(3, sum(lengths))
    places = columns.split(lengths, dim=1)
    training = student.training
    student.eval()
    device = next(student.parameters()).device
    for indices in scoring_batches(sharded, batch_tokens):
        batch = collate(sharded, indices).to(device)
        log_q, log_p = _both_log_probs(student, signal, batch)
        rewards = ((log_p - log_q) / options.reward_scale).clamp_(-options.reward_clip, options.reward_clip)
        share = options.teacher_share
        importance = 1 / ((1 - share) + share * (log_p - log_q).exp())
        scores = torch.stack([log_q, importance, rewards]).cpu()
        for i, part in zip(indices, scores.split([len(sharded[i].response) for i in indices], dim=1), strict=True):
            places[shard[i]].copy_(part)
    distributed.all_reduce_sum_(columns)
    student.train(training)
    return [_Scored(r, *place.tolist()) for r, place in zip(records, places, strict=True)]


def _both_log_probs(student: PreTrainedModel, signal: TeacherSignal, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """log q and log p of the batch's targets, (m,) each, in float32."""
    pieces = []
    states = hidden_states(student, batch), signal.states(batch)
    chunks = zip(*(x.split(CHUNK) for x in (*states, batch.targets)), strict=True)
    for student_states, teacher_states, targets in chunks:
        log_q = target_log_probs(output_logits(student, student_states), targets)
        pieces.append((log_q, target_log_probs(signal.logits(teacher_states), targets)))
    log_q, log_p = zip(*pieces, strict=True)
    return torch.cat(log_q), torch.cat(log_p)


def _joined(lists: Sequence[list[float]]) -> torch.Tensor:
    return torch.tensor([x for values in lists for x in values])
