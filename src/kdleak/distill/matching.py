"""The objective that matches a student to its teacher, one position at a time."""

from __future__ import annotations

import torch

from kdleak.data.batching import Batch
from kdleak.distill.batch_source import DistillationBatch
from kdleak.distill.divergences import Divergence
from kdleak.distill.finetune import cross_entropy
from kdleak.distill.objective import divergence_loss
from kdleak.distill.teacher_signal import TeacherSignal
from kdleak.distill.training import Objective
from kdleak.models.forward import hidden_states


def matching_objective(signal: TeacherSignal, divergence: Divergence, lm_weight: float = 0.0) -> Objective:
    """Mean divergence between teacher and student over the response positions, and `lm_weight` times the
    cross-entropy of the corpus that stands beside the batch, if one does."""

    def objective(student: torch.nn.Module, batch: Batch) -> torch.Tensor:
        loss = divergence_loss(
            hidden_states(student, batch), student.get_output_embeddings(), signal(batch), signal.head, divergence
        )
        if isinstance(batch, DistillationBatch) and batch.corpus is not None:
            loss = loss + lm_weight * cross_entropy(student, batch.corpus)
        return loss

    return objective
