"""Knowledge distillation as Hinton et al. (2015) run it: softened distributions, and the labels beside them."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from kdleak.config.schema import Share
from kdleak.distill.divergences import Divergence, forward_kl
from kdleak.distill.matching import DivergenceMethod
from kdleak.distill.registry import method


@method("hinton", source="Hinton et al. 2015")
class Hinton(DivergenceMethod):
    """kd_ratio · T²·KL(p_T ‖ q_T) + (1 − kd_ratio) · cross-entropy of the references, p_T and q_T at temperature T.

    temperature: T; T² keeps the first term's gradient as large as at 1, since both softmaxes divide it by T. 2, since
    the paper found moderate temperatures to suit students much smaller than their teacher. kd_ratio: α; the paper has
    the labels weigh considerably less, here a tenth.
    """

    loss = "fkl"
    temperature: Annotated[float, Field(gt=0, le=100)] = 2.0
    kd_ratio: Share = 0.9

    def divergence(self) -> Divergence:
        def softened(student_logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
            t = self.temperature
            return t**2 * forward_kl(student_logits / t, teacher_logits / t)

        return softened
