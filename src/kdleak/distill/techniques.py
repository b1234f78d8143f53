"""The techniques on fixed data: which divergence from the teacher a student minimises."""

from __future__ import annotations

from collections.abc import Callable

import torch

from kdleak.data.batching import Batch
from kdleak.distill.divergences import forward_kl, reverse_kl
from kdleak.distill.teacher_signal import TeacherSignal
from kdleak.distill.training import Objective
from kdleak.models.forward import response_logits

Divergence = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

DIVERGENCE_OF: dict[str, Divergence] = {"kd": forward_kl, "rkl": reverse_kl}


def divergence_objective(signal: TeacherSignal, divergence: Divergence) -> Objective:
    """Mean over the response positions of the divergence between teacher and student."""

    def objective(student: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return divergence(response_logits(student, batch), signal.logits(batch)).mean()

    return objective
