"""Softened distillation with labels beside it, against its formula."""

from __future__ import annotations

import torch

from kdleak.distill.matching import divergence_loss
from kdleak.distill.methods.hinton import Hinton
from kdleak.distill.methods.plain import KD


def logits() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 6, 11, generator=generator, dtype=torch.float64) * 3
    return student, teacher


def test_it_is_the_formula():
    student, teacher = logits()
    targets, temperature, alpha = torch.tensor([0, 3, 5, 5, 10, 1]), 4.0, 0.7
    options = Hinton(temperature=temperature, kd_ratio=alpha)
    p, q = (teacher / temperature).softmax(-1), (student / temperature).softmax(-1)
    soft = temperature**2 * (p * (p / q).log()).sum(-1)
    hard = -student.softmax(-1).log()[range(6), targets]
    head = torch.nn.Linear(11, 11, bias=False, dtype=torch.float64)
    with torch.no_grad():
        head.weight.copy_(torch.eye(11))
    ours = divergence_loss(
        student, head, teacher, lambda states: states, options.divergence(), targets=targets, kd_ratio=options.kd_ratio
    )
    torch.testing.assert_close(ours.item(), (alpha * soft + (1 - alpha) * hard).mean().item(), rtol=1e-5, atol=0)


def test_at_a_high_temperature_the_gradient_is_that_of_matching_centred_logits():
    """Hinton et al., eq. 4: (z − v) / V for logits of mean zero, with the factor T² that undoes the 1/T²."""
    student, teacher = (x - x.mean(-1, keepdim=True) for x in logits())
    student.requires_grad_()
    loss = Hinton(temperature=100.0).divergence()(student, teacher)
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    torch.testing.assert_close(gradient, (student.detach() - teacher) / 11, rtol=0.1, atol=0.02)


def test_at_a_temperature_of_one_and_without_labels_it_is_kd():
    student, teacher = logits()
    plain = Hinton(temperature=1.0, kd_ratio=1.0).divergence()(student, teacher)
    torch.testing.assert_close(plain, KD().divergence()(student, teacher))
