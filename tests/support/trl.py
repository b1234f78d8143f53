"""Losses that TRL's own functions gave (tests/distill/trl_losses.json, whose header says by what and how)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

_FILE = Path(__file__).resolve().parents[1] / "distill" / "trl_losses.json"
_CASES = {case["name"]: case for case in json.loads(_FILE.read_text())["cases"]}

every_case = pytest.mark.parametrize("name", sorted(_CASES))


@dataclass(frozen=True)
class Case:
    """Logits (5, 9) of both models in float64, tokens (5,), which positions count, and TRL's numbers by loss."""

    student: torch.Tensor
    teacher: torch.Tensor
    tokens: torch.Tensor
    unmasked: torch.Tensor
    golden: dict[str, Any]


def trl_case(name: str) -> Case:
    case = _CASES[name]
    student, teacher = (torch.tensor(case[f"{who}_logits"], dtype=torch.float64) for who in ("student", "teacher"))
    return Case(
        student.requires_grad_(), teacher, torch.tensor(case["tokens"]), torch.tensor(case["labels"]) != -100, case
    )


def against_trl(values: torch.Tensor, case: Case, loss: str) -> None:
    """`values` (5,) of our loss: the mean over unmasked positions and its gradient are TRL's, to 1e-6."""
    mean = values[case.unmasked].mean()
    (gradient,) = torch.autograd.grad(mean, case.student)
    for ours, golden in ((mean.detach(), "value"), (gradient, "gradient")):
        theirs = torch.tensor(case.golden[loss][golden], dtype=torch.float64)
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
