"""The techniques on fixed data: which divergence from the teacher a student minimises."""

from __future__ import annotations

import torch

from kdleak.data.batching import Batch
from kdleak.distill.divergences import Divergence, forward_kl, reverse_kl
from kdleak.distill.objective import divergence_loss
from kdleak.distill.teacher_signal import TeacherSignal
from kdleak.distill.training import Objective
from kdleak.models.forward import hidden_states

DIVERGENCE_OF: dict[str, Divergence] = {"kd": forward_kl, "rkl": reverse_kl}


def divergence_objective(signal: TeacherSignal, divergence: Divergence) -> Objective:
    """Mean over the response positions of the divergence between teacher and student."""

    def objective(student: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return divergence_loss(
            hidden_states(student, batch),
            student.get_output_embeddings(),
            signal.states(batch),
            signal.head,
            divergence,
        )

    return objective
