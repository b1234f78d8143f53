"""Matching a student to its teacher, one position at a time: the objective, and the methods that minimise it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F

from kdleak.config.schema import Count, Share
from kdleak.data.batching import Batch
from kdleak.distill.divergences import DIVERGENCES, Divergence
from kdleak.distill.registry import INIT_IGNORED, Method, Run, Text
from kdleak.distill.rollouts import ConstantShare, ReplayBuffer, RolloutBatches
from kdleak.distill.teacher_signal import TeacherSignal
from kdleak.inference.forward import hidden_states
from kdleak.models.output_head import OutputHead, output_head
from kdleak.training.batch_sources import BatchSource, FixedBatches
from kdleak.training.chunked_loss import CHUNK, chunked_loss
from kdleak.training.loop import Objective

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kdleak.distill.context import Context

#: Defects of the study's published code in every method that learns from its own text.
ON_POLICY_DEFECTS = INIT_IGNORED | {4: "the first token of student-written responses is never distilled"}
THROUGH_BUFFER = {16: "student-written batches are drawn from a replay buffer of 1,000 texts, GKD's too"}


def divergence_loss(
    student_hidden: torch.Tensor,
    student_head: torch.nn.Linear | OutputHead,
    teacher_states: torch.Tensor,
    teacher_logits: Callable[[torch.Tensor], torch.Tensor],
    divergence: Divergence,
    weights: torch.Tensor | None = None,
    chunk: int = CHUNK,
    targets: torch.Tensor | None = None,
    kd_ratio: float = 1.0,
) -> torch.Tensor:
    """Mean divergence over positions, in nats: (m, d_s) and (m, d_t) hidden states -> scalar.

    The gradient reaches the student's hidden states and head; the teacher gets none. With `weights` (m,) the result
    is their weighted sum (a mean is weights of 1 / m). kd_ratio: share of the divergence; the rest is the cross-entropy
    of `targets` (m,).
    """

    def position_loss(logits: torch.Tensor, positions: slice) -> torch.Tensor:
        with torch.no_grad():
            teacher = teacher_logits(teacher_states[positions])
        loss = divergence(logits, teacher)
        if kd_ratio == 1:
            return loss
        assert targets is not None  # a share of cross-entropy comes with them
        cross_entropy = F.cross_entropy(logits.float(), targets[positions], reduction="none")
        return kd_ratio * loss + (1 - kd_ratio) * cross_entropy

    return chunked_loss(student_hidden, student_head, position_loss, weights, chunk)


def matching_objective(signal: TeacherSignal, divergence: Divergence, kd_ratio: float = 1.0) -> Objective:
    """Mean over the response positions of the divergence between teacher and student; of cross-entropy, 1 − kd_ratio of
    it."""

    def objective(student: PreTrainedModel, batch: Batch) -> torch.Tensor:
        hidden, head = hidden_states(student, batch), output_head(student)
        states, mix = signal.states(batch), {"targets": batch.targets, "kd_ratio": kd_ratio}
        return divergence_loss(hidden, head, states, signal.logits, divergence, batch.weights, **mix)

    return objective


class DivergenceMethod(Method):
    """Minimises a divergence on the references or, with probability `student_fraction`, on the student's own text.

    A student with a fraction starts from the baseline, a fraction of 0 included, so that a sweep changes data alone.
    With a replay_capacity its own text goes into a buffer of so many, and its batches are drawn from that.
    kd_ratio: the divergence's share in the loss, the rest is cross-entropy; None: the whole.
    """

    loss: ClassVar[str]
    kd_ratio: Share | None = None
    student_fraction: Share | None = None
    replay_capacity: Count | None = None

    def divergence(self) -> Divergence:
        """(student_logits, teacher_logits) -> nats at each position."""
        return DIVERGENCES[self.loss]

    @property
    def text(self) -> Text:
        return Text.REFERENCES if self.student_fraction is None else Text.MIXED

    def build(self, context: Context) -> Run:
        records = context.references()
        batches: BatchSource = FixedBatches(records, self.batch_size, context.seed)
        if self.student_fraction is not None:
            batches = RolloutBatches(
                batches,
                ConstantShare(self.student_fraction, through_buffer=self.replay_capacity is not None),
                context.rollouts(),
                self.total_steps(batches.steps_per_epoch),
                None if self.replay_capacity is None else ReplayBuffer(self.replay_capacity),
                drop_first_token=4 in self.defects,
            )
        ratio = 1.0 if self.kd_ratio is None else self.kd_ratio
        objective = matching_objective(context.signal(records), self.divergence(), ratio)
        return Run(objective, batches, records)

    def with_student_fraction(self, fraction: float) -> DivergenceMethod:
        return self.model_copy(update={"student_fraction": fraction})

    def as_published(self) -> Method:
        if self.student_fraction is None:
            return self
        if self.replay_capacity is not None:
            return self.departing(ON_POLICY_DEFECTS)
        return self.departing(ON_POLICY_DEFECTS | THROUGH_BUFFER, replay_capacity=1000)
