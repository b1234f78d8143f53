"""Divergences against values and gradients that DistiLLM's and TRL's own functions gave (shared golden/losses.json).

The references average over unmasked positions; ours are compared position by position, and gradients of that mean.
"""

from __future__ import annotations

import functools
import json
import re

import pytest
import torch

from kdleak.distill.divergences import (
    forward_kl,
    jensen_shannon,
    reverse_kl,
    skew_forward_kl,
    skew_reverse_kl,
    total_variation,
)
from tests.support.shared import shared

CASES = ("plain", "peaked", "shifted_student_and_teacher", "shifted_student_only", "equal", "far")
DTYPES = {torch.float64: 1e-6, torch.float32: 1e-4}
#: name in the golden file -> (divergence, weight or alpha, share of the teacher's entropy that the reference adds)
DISTILLM = {
    "forward_kl": (forward_kl, None),
    "reverse_kl": (reverse_kl, None),
    "js_distance": (jensen_shannon, "weight"),
    "tv_distance": (total_variation, None),
    "skewed_forward_kl": (skew_forward_kl, "alpha"),
    "skewed_reverse_kl": (skew_reverse_kl, "alpha"),
}
#: The references of these are cross-entropies: they leave the teacher's entropy in.
STARRED = ("forward_kl", "skewed_forward_kl")


def case(name: str) -> dict:
    cases = json.loads((shared("golden") / "losses.json").read_text())["cases"]
    return {c["name"]: c for c in cases}[name]


def compared(ours, golden: dict, content: dict, dtype: torch.dtype, entropy: float = 0.0, temperature: float = 1.0):
    """`ours` at every position, and its gradient through the masked mean, against the golden values."""
    student = torch.tensor(content["student_logits"], dtype=dtype).requires_grad_()
    teacher = torch.tensor(content["teacher_logits"], dtype=dtype)
    unmasked = torch.tensor(content["labels"]) != -100
    values = ours(student / temperature, teacher / temperature)
    close = functools.partial(torch.testing.assert_close, rtol=DTYPES[dtype], atol=DTYPES[dtype], check_dtype=False)
    plus = entropy * torch.tensor(content["teacher_entropy_per_position"], dtype=torch.float64)
    close(values.detach() + plus, torch.tensor(golden["per_position_unmasked"], dtype=torch.float64))
    mean = values[unmasked].mean()
    value = golden.get("value", golden.get("value_batchmean"))
    close((mean + plus[unmasked].mean()).detach(), torch.tensor(value, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(mean, student)
    (name,) = (key for key in golden if key.startswith("gradient_of"))
    close(gradient, torch.tensor(golden[name], dtype=torch.float64))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_divergences_are_those_of_distillm(name, dtype):
    content = case(name)
    for label, golden in content["distillm"].items():
        base, lam = re.fullmatch(r"(.+?)(?:_lam_([\d.]+))?", label).groups()
        if base == "symmetric_kl":  # not a method here: lam of the reverse and 1 - lam of the forward KL
            share = float(lam)

            def symmetric(q, p, share=share):
                return (1 - share) * forward_kl(q, p) + share * reverse_kl(q, p)

            compared(symmetric, golden, content, dtype, entropy=1 - share)
            continue
        divergence, option = DISTILLM[base]
        ours = functools.partial(divergence, **{option: float(lam)}) if option else divergence
        compared(ours, golden, content, dtype, entropy=float(base in STARRED))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_jensen_shannon_is_trls_with_beta_as_one_minus_weight_and_kls_at_its_ends(name, dtype):
    content = case(name)
    for golden in content["trl_generalized_jsd"].values():
        beta = golden["beta"]
        ends = {0.0: forward_kl, 1.0: reverse_kl}
        ours = ends.get(beta, functools.partial(jensen_shannon, weight=1 - beta))
        compared(ours, golden, content, dtype, temperature=golden["temperature"])


# For every checkout: one position of golden case `plain` (distillm d47e77f losses.py, TRL f2cd577 gkd_trainer.py).
PLAIN = """{"student": [0.517333984375, 1.96435546875, 0.4482421875, 0.580322265625, -1.04931640625, 0.128662109375,
  -0.291015625, 0.4580078125, 1.693359375, 1.45751953125, 1.93212890625],
 "teacher": [-1.088623046875, -0.687744140625, 0.375732421875, -0.09814453125, 1.064208984375, -1.695556640625,
  -0.92578125, 0.6044921875, -1.191650390625, -1.514404296875, -0.97705078125],
 "entropy": 2.0084643496329404,
 "reverse_kl": 0.996903158039731,
 "js_distance_lam_0.9": 0.10080828368409532,
 "tv_distance": 0.6107419114456387,
 "skewed_reverse_kl_lam_0.1": 0.761086340401481,
 "forward_kl": 3.31387779708753,
 "skewed_forward_kl_lam_0.1": 2.82683160635409}"""


def test_a_position_carried_over():
    content = json.loads(PLAIN)
    student, teacher = (torch.tensor(content[k], dtype=torch.float64) for k in ("student", "teacher"))
    for name, (divergence, options) in {
        "reverse_kl": (reverse_kl, {}),
        "js_distance_lam_0.9": (jensen_shannon, {"weight": 0.9}),
        "tv_distance": (total_variation, {}),
        "skewed_reverse_kl_lam_0.1": (skew_reverse_kl, {"alpha": 0.1}),
    }.items():
        assert divergence(student, teacher, **options).item() == pytest.approx(content[name], rel=1e-9)
    for name, (divergence, options) in {
        "forward_kl": (forward_kl, {}),
        "skewed_forward_kl_lam_0.1": (skew_forward_kl, {"alpha": 0.1}),
    }.items():
        expected = content[name] - content["entropy"]
        assert divergence(student, teacher, **options).item() == pytest.approx(expected, rel=1e-9)
