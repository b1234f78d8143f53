"""The teacher releases a mixture with the public base that it was fine-tuned from, or its strongest shifts alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from kdleak.config.schema import Count, Share
from kdleak.defend.registry import Acts, Defence, defence
from kdleak.inference.release import Release

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Blend:
    """log(share·b + (1 − share)·p'): (…, V) and (…, V) logits -> (…, V) log-probabilities.

    b is the base's distribution and p' the teacher's p; with `kept`, p' is b but at the `kept` tokens of largest
    |p·log(p / b)|, where it is p, renormalised. beside: the base. digest: of its checkpoint.
    """

    share: float
    kept: int | None
    digest: str
    beside: tuple[PreTrainedModel, ...] = field(repr=False)

    def __call__(self, teacher: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        log_p, log_b = teacher.float().log_softmax(-1), base.float().log_softmax(-1)
        if self.kept is not None:
            influence = (log_p.exp() * (log_p - log_b)).abs()
            strongest = influence.topk(min(self.kept, influence.shape[-1]), dim=-1).indices
            log_p = log_b.scatter(-1, strongest, log_p.gather(-1, strongest)).log_softmax(-1)
        return torch.logaddexp(log_b + _log(self.share), log_p + _log(1 - self.share))


def _log(share: float) -> float:
    return math.log(share) if share > 0 else -math.inf


@defence("blend", acts_on=Acts.SIGNAL, source="mixture with a public model; kept shifts after SCP-Δr, arXiv 2602.00688")
class BlendWithBase(Defence):
    """base_share: λ, of the public base in what is released. kept_shifts: tokens at a position whose probability is the
    teacher's before that, those that add most to KL(teacher ‖ base); empty: all."""

    knob = "base_share"
    strengths = (0.25, 0.5, 0.75, 0.9)
    protects = "a share of every shift that private records made"
    does_not_protect = "the shift's direction: whoever has the base and knows λ takes it out again"
    base_share: Share = 0.5
    kept_shifts: Count | None = None

    def release(self, public_base: Path, teacher: Path) -> Release:
        from kdleak.models.checkpoints import load_model
        from kdleak.models.model_files import content_hash

        base = load_model(public_base).requires_grad_(False)
        return Blend(self.base_share, self.kept_shifts, content_hash(public_base), (base,))
