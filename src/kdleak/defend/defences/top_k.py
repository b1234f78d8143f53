"""The teacher releases its k likeliest tokens, renormalised."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from kdleak.config.schema import Count
from kdleak.defend.registry import Acts, Defence, defence
from kdleak.inference.release import Release


@dataclass(frozen=True)
class TopK:
    """Logits of the `k` likeliest tokens, −inf for all others: (…, V) -> (…, V). Of ties, exactly k are kept."""

    k: int

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        best = logits.topk(min(self.k, logits.shape[-1]), dim=-1)
        return torch.full_like(logits, -torch.inf).scatter(-1, best.indices, best.values)


@defence("top_k", acts_on=Acts.SIGNAL, source="truncated soft labels, as stored and served logits are")
class TruncatedSignal(Defence):
    """k: tokens at each position."""

    knob = "k"
    strengths = (50, 20, 5, 2)
    protects = "the tail of the teacher's distribution"
    does_not_protect = "a memorized token: it is the likeliest one, and is released with its probability"
    k: Count = 5

    def release(self, public_base: Path, teacher: Path) -> Release:
        return TopK(self.k)
