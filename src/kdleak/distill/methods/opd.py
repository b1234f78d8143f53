"""On-policy distillation: reverse KL at each token of text that the student has just written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F

from kdleak.core.errors import KdleakError
from kdleak.distill.divergences import LOG_ZERO, reverse_kl
from kdleak.distill.matching import matching_objective
from kdleak.distill.registry import Method, Run, Text, method
from kdleak.distill.rollouts import ConstantShare, RolloutBatches
from kdleak.inference.forward import hidden_states
from kdleak.models.output_head import output_head
from kdleak.training.batch_sources import FixedBatches
from kdleak.training.chunked_loss import chunked_loss

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kdleak.data.batching import Batch
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
    """

    loss = "rkl"
    estimator: Literal["vocabulary", "token"] = "vocabulary"

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
        batches = RolloutBatches(fixed, ConstantShare(1.0), context.rollouts(), steps)
        signal = context.signal()
        by_token = self.estimator == "token"
        return Run(sampled_objective(signal) if by_token else matching_objective(signal, reverse_kl), batches, records)


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
