"""The objective that matches a student to its teacher, one position at a time."""

from __future__ import annotations

import torch

from kdleak.data.batching import Batch
from kdleak.distill.divergences import Divergence
from kdleak.distill.teacher_signal import TeacherSignal
from kdleak.inference.forward import hidden_states
from kdleak.training.chunked_loss import divergence_loss
from kdleak.training.finetune import with_corpus_loss
from kdleak.training.loop import Objective


def matching_objective(signal: TeacherSignal, divergence: Divergence, lm_weight: float = 0.0) -> Objective:
    """Mean divergence between teacher and student over the response positions, and `lm_weight` times the
    cross-entropy of the corpus that stands beside the batch, if one does."""

    def objective(student: torch.nn.Module, batch: Batch) -> torch.Tensor:
        hidden, head = hidden_states(student, batch), student.get_output_embeddings()
        return divergence_loss(hidden, head, signal(batch), signal.head, divergence, batch.weights)

    return with_corpus_loss(objective, lm_weight)
