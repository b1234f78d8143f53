"""The teacher releases its distribution at a higher temperature."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from kdleak.defend.registry import Acts, Defence, defence
from kdleak.inference.release import Release


@dataclass(frozen=True)
class Flattened:
    """softmax(logits / temperature), as logits: (…, V) -> (…, V)."""

    temperature: float

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        return logits / self.temperature


@defence("temperature", acts_on=Acts.SIGNAL, source="Hinton et al. 2015 (arXiv 1503.02531)")
class Temperature(Defence):
    """temperature: above 1 flattens the distribution. The student learns the flattened one, and is not cooled again."""

    knob = "temperature"
    strengths = (1.5, 2.0, 4.0, 8.0)
    protects = "the teacher's confidence in what it has memorized"
    does_not_protect = "anything from whoever knows the temperature: the logits are a multiple of the teacher's"
    temperature: Annotated[float, Field(gt=0, le=1000)] = 2.0

    def release(self, public_base: Path, teacher: Path) -> Release:
        return Flattened(self.temperature)
