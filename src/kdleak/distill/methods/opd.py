"""On-policy distillation: reverse KL at each token of text that the student has just written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator

from kdleak.config.schema import Count
from kdleak.core.errors import KdleakError
from kdleak.distill.divergences import LOG_ZERO, reverse_kl
from kdleak.distill.matching import matching_objective
from kdleak.distill.registry import Method, Run, Text, method
from kdleak.distill.rollouts import ConstantShare, Origin, RolloutBatches, Rollouts, from_row, to_row
from kdleak.inference.forward import hidden_states
from kdleak.models.output_head import output_head
from kdleak.training.batch_sources import FixedBatches
from kdleak.training.chunked_loss import chunked_loss

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kdleak.data.batching import Batch
    from kdleak.data.encoding import EncodedRecord
    from kdleak.distill.context import Context
    from kdleak.distill.teacher_signal import TeacherSignal
    from kdleak.training.loop import Objective


@method("opd", source="Agarwal et al. 2024 with TRL's DistillationTrainer; Lu and Thinking Machines Lab 2025")
class OPD(Method):
    """KL(q ‖ p), q the student and p the teacher, at every token that q has drawn; no reference, no LM loss, no replay.

    estimator: "vocabulary", the whole sum over the next token, as in TRL's DistillationTrainer (beta 1); it is the
    default because no chance enters it. Or "token", log q − log p of the drawn token alone (`sampled_reverse_kl`), for
    which the teacher gives one number a position. That trains without dropout and at a temperature of 1: its tokens
    must be drawn from the q that is updated.
    rollout_steps: steps whose texts are written at once, which fills the batches of generation; no text is older than
    rollout_steps − 1 steps, by default 0, which is on-policy in the strict sense.
    """

    loss = "rkl"
    estimator: Literal["vocabulary", "token"] = "vocabulary"
    rollout_steps: Count = 1

    @model_validator(mode="after")
    def _drawn_from_the_student(self) -> OPD:
        if self.estimator == "token" and self.rollout_steps > 1:
            raise ValueError("rollout_steps: estimator token learns from fresh text alone; set it to 1")
        return self

    @property
    def text(self) -> Text:
        return Text.MIXED

    @property
    def optimizer(self) -> Mapping[str, Any]:
        return {"dropout": False} if self.estimator == "token" else {}

    def build(self, context: Context) -> Run:
        if self.estimator == "token" and context.params.generation.temperature != 1:
            raise KdleakError(
                "generation.temperature: 'opd' with estimator token takes 1 alone, at which its tokens are drawn from "
                "the student itself; set it to 1 or kd.recipes.opd.estimator to vocabulary"
            )
        records = context.references()
        fixed = FixedBatches(records, self.batch_size, context.seed)
        steps = self.total_steps(fixed.steps_per_epoch)
        batches = WrittenAhead(fixed, context.rollouts(), steps, self.rollout_steps)
        signal = context.signal()
        by_token = self.estimator == "token"
        return Run(sampled_objective(signal) if by_token else matching_objective(signal, reverse_kl), batches, records)


class WrittenAhead(RolloutBatches):
    """Batches that the student alone writes, those of `ahead` steps at once; of fewer where an epoch ends."""

    def __init__(self, fixed: FixedBatches, rollouts: Rollouts, steps: int, ahead: int):
        super().__init__(fixed, ConstantShare(1.0), rollouts, steps)
        self._ahead = ahead
        self._waiting: list[tuple[int, EncodedRecord]] = []

    def _student_text(
        self, origin: Origin, model: PreTrainedModel, records: Sequence[EncodedRecord], step: int
    ) -> list[tuple[int, EncodedRecord]]:
        if not self._waiting:
            left = min(self.steps_per_epoch - step % self.steps_per_epoch, self._steps - step)
            coming = [i for later in range(min(self._ahead, left)) for i in self.fixed.indices(step + later)]
            written = self.rollouts.write(model, [self.fixed.records[i] for i in coming], step)
            self._waiting = [(step, record) for record in written]
            self._tally.rounds += 1
        texts, self._waiting = self._waiting[: len(records)], self._waiting[len(records) :]
        return texts

    def state(self) -> dict[str, Any]:
        return super().state() | {"waiting": [[step, to_row(record)] for step, record in self._waiting]}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._waiting = [(step, from_row(row)) for step, row in state["waiting"]]


def sampled_objective(signal: TeacherSignal) -> Objective:
    """Mean of `sampled_reverse_kl` over the tokens of a batch that the student wrote."""

    def objective(student: PreTrainedModel, batch: Batch) -> torch.Tensor:
        states = signal.states(batch)

        def position_loss(logits: torch.Tensor, positions: slice) -> torch.Tensor:
            return sampled_reverse_kl(logits, signal.logits(states[positions]), batch.targets[positions])

        return chunked_loss(hidden_states(student, batch), output_head(student), position_loss, batch.weights)

    return objective


def sampled_reverse_kl(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """log q − log p of `tokens` (m,), from (m, V) logits: (m,) nats, with the gradient (log q − log p) ∇ log q.

    Over tokens drawn from q the mean of the value is KL(q ‖ p), and the mean of the gradient is that of KL(q ‖ p): the
    policy gradient of the reward log p − log q. (What it lacks, ∇ log q, has mean zero.) The teacher gets no gradient.
    """
    log_q = _log_probs_of(tokens, student_logits)
    advantage = (_log_probs_of(tokens, teacher_logits).clamp(min=LOG_ZERO) - log_q).detach()
    return -advantage - advantage * (log_q - log_q.detach())


def _log_probs_of(tokens: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """(m,) log-probabilities, at least float32."""
    return -F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), tokens, reduction="none")
