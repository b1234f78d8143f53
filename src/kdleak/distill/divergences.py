"""Divergences between student and teacher, one value a position: (…, V) logits -> (…,) nats.

q is the student's distribution, p the teacher's; every function takes `(student_logits, teacher_logits)`.
Values are unreduced, non-negative and finite. Sums run in log-space and in float32 under float16 and bfloat16.
A token that a model excludes (logit −inf) has log-probability `LOG_ZERO` instead: what one model excludes and the
other takes costs a large finite amount and never a NaN, and what both exclude costs nothing.

Each divergence is written as its value and `q · ∂D/∂q`; the softmax's Jacobian is applied once, in place, while the
vocabulary is still in cache. The gradient for the teacher is that of the mirrored divergence with the roles exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch

#: Stands for log 0: below every difference of log-probabilities that logits within ±1e4 can make.
LOG_ZERO = -1e5

Divergence = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
#: (log_q, log_p, with_slope) -> (D, q · ∂D/∂q or None); may overwrite log_p, must leave log_q.
_Kernel = Callable[[torch.Tensor, torch.Tensor, bool], tuple[torch.Tensor, torch.Tensor | None]]


def forward_kl(student_logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
    """KL(p ‖ q), the objective of Hinton et al. (2015): the student must cover whatever the teacher may say."""
    return _Divergence.apply(student_logits, teacher_logits, _forward_kl, _reverse_kl)


def reverse_kl(student_logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
    """KL(q ‖ p), the objective of MiniLLM (Gu et al. 2024) a step at a time: the student must not say what the
    teacher would not."""
    return _Divergence.apply(student_logits, teacher_logits, _reverse_kl, _forward_kl)


def jensen_shannon(student_logits: torch.Tensor, teacher_logits: torch.Tensor, weight: float = 0.5) -> torch.Tensor:
    """Generalised Jensen-Shannon divergence, weight·KL(q ‖ m) + (1 − weight)·KL(p ‖ m), m = (1 − weight)·p + weight·q.

    `weight` is the λ of the study (.9 in its code) and 1 − β of GKD (Agarwal et al. 2024, eq. 1) and of TRL's
    `generalized_jsd_loss`. At ½ it is the symmetric JSD, at most log 2. Towards the ends it vanishes:
    D / weight -> KL(q ‖ p) for weight -> 0 and D / (1 − weight) -> KL(p ‖ q) for weight -> 1. (TRL returns these
    limits, unscaled, at its own ends β = 1 and β = 0.)
    """
    _check_share("weight", weight)
    return _Divergence.apply(
        student_logits,
        teacher_logits,
        partial(_jensen_shannon, weight=weight),
        partial(_jensen_shannon, weight=1 - weight),
    )


def skew_forward_kl(student_logits: torch.Tensor, teacher_logits: torch.Tensor, alpha: float = 0.1) -> torch.Tensor:
    """KL(p ‖ alpha·p + (1 − alpha)·q), DistiLLM (Ko et al. 2024, eq. 4): forward KL at 0, nothing at 1."""
    _check_share("alpha", alpha)
    return _Divergence.apply(
        student_logits,
        teacher_logits,
        partial(_skew_forward_kl, alpha=alpha),
        partial(_skew_reverse_kl, alpha=alpha),
    )


def skew_reverse_kl(student_logits: torch.Tensor, teacher_logits: torch.Tensor, alpha: float = 0.1) -> torch.Tensor:
    """KL(q ‖ (1 − alpha)·p + alpha·q), DistiLLM (Ko et al. 2024): reverse KL at 0, nothing at 1."""
    _check_share("alpha", alpha)
    return _Divergence.apply(
        student_logits,
        teacher_logits,
        partial(_skew_reverse_kl, alpha=alpha),
        partial(_skew_forward_kl, alpha=alpha),
    )


def total_variation(student_logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
    """½ Σ|p − q|, in [0, 1] (f-distill, Wen et al. 2023)."""
    return _Divergence.apply(student_logits, teacher_logits, _total_variation, _total_variation)


def adaptive_kl(student_logits: torch.Tensor, teacher_logits: torch.Tensor, head_mass: float = 0.5) -> torch.Tensor:
    """AKL (Wu et al. 2025, arXiv 2404.02657): forward and reverse KL, weighted at each position by where q errs.

    The head is the smallest set of the teacher's likeliest tokens that holds `head_mass`. Forward KL gets the head's
    share of |p − q|, reverse KL the tail's; the shares are constants of the gradient.
    """
    _check_share("head_mass", head_mass)
    with torch.no_grad():
        p, order = _log_probs(teacher_logits).exp_().sort(dim=-1, descending=True)
        gap = _log_probs(student_logits).exp_().gather(-1, order).sub_(p).abs_()
        in_head = p.cumsum(-1).sub_(p) < head_mass
        total = gap.sum(-1)
        share = torch.where(total > 0, (gap * in_head).sum(-1) / total.clamp(min=torch.finfo(total.dtype).tiny), 0.5)
    return share * forward_kl(student_logits, teacher_logits) + (1 - share) * reverse_kl(student_logits, teacher_logits)


#: By the labels that results give them.
DIVERGENCES: dict[str, Callable[..., torch.Tensor]] = {
    "fkl": forward_kl,
    "rkl": reverse_kl,
    "jsd": jensen_shannon,
    "sfkl": skew_forward_kl,
    "srkl": skew_reverse_kl,
    "tvd": total_variation,
    "akl": adaptive_kl,
}


class _Divergence(torch.autograd.Function):
    """A divergence with its gradient computed beside its value: three vocabulary-size temporaries, one kept."""

    @staticmethod
    def forward(ctx, student_logits: torch.Tensor, teacher_logits: torch.Tensor, kernel: _Kernel, mirror: _Kernel):
        for_student, for_teacher = ctx.needs_input_grad[:2]
        value, student_slope = _value_and_slope(student_logits, teacher_logits, kernel, for_student)
        teacher_slope = _value_and_slope(teacher_logits, student_logits, mirror, True)[1] if for_teacher else None
        ctx.save_for_backward(student_slope, teacher_slope)
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: torch.Tensor):
        # A plain sum hands down ones, and then a pass over the vocabulary can be saved.
        ones = grad.device.type == "cpu" and grad.numel() and not any(grad.stride()) and grad.flatten()[0] == 1
        slopes = (s if s is None or ones else s * grad.unsqueeze(-1).to(s.dtype) for s in ctx.saved_tensors)
        return (*slopes, None, None)


def _value_and_slope(
    logits: torch.Tensor, other_logits: torch.Tensor, kernel: _Kernel, with_slope: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The divergence and, if asked for, its gradient for `logits`, in their dtype."""
    log_q = _log_probs(logits)
    value, slope = kernel(log_q, _log_probs(other_logits), with_slope)
    if slope is not None:
        # The softmax's Jacobian: ∂D/∂z = q·∂D/∂q − q·Σ(q·∂D/∂q).
        total = slope.sum(-1, keepdim=True)
        slope = slope.sub_(log_q.exp_().mul_(total)).to(logits.dtype)
    return value.clamp_(min=0), slope


def _log_probs(logits: torch.Tensor) -> torch.Tensor:
    """A fresh tensor of log-probabilities, finite, at least float32."""
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return torch.log_softmax(logits.detach(), dim=-1, dtype=dtype).clamp_(min=LOG_ZERO)


def _forward_kl(log_q: torch.Tensor, log_p: torch.Tensor, with_slope: bool):
    p = log_p.exp()
    value = log_p.sub_(log_q).mul_(p).sum(-1)
    return value, p.neg_() if with_slope else None


def _reverse_kl(log_q: torch.Tensor, log_p: torch.Tensor, with_slope: bool):
    slope = torch.sub(log_q, log_p, out=log_p).mul_(log_q.exp())
    return slope.sum(-1), slope if with_slope else None


def _jensen_shannon(log_q: torch.Tensor, log_p: torch.Tensor, with_slope: bool, weight: float):
    log_m = torch.logaddexp(log_q + _log(weight), log_p + _log(1 - weight))
    slope = (log_q - log_m).mul_(log_q.exp()).mul_(weight)
    p = log_p.exp()
    value = slope.sum(-1) + log_p.sub_(log_m).mul_(p).sum(-1).mul_(1 - weight)
    return value, slope if with_slope else None


def _skew_forward_kl(log_q: torch.Tensor, log_p: torch.Tensor, with_slope: bool, alpha: float):
    log_m = torch.logaddexp(log_p + _log(alpha), log_q + _log(1 - alpha))
    p = log_p.exp()
    log_ratio = log_p.sub_(log_m)
    value = (p * log_ratio).sum(-1)
    if not with_slope:
        return value, None
    # −(1 − α)·q·p/m, where (1 − α)·q/m <= 1
    return value, (log_q + _log(1 - alpha)).sub_(log_m).exp_().mul_(p).neg_()


def _skew_reverse_kl(log_q: torch.Tensor, log_p: torch.Tensor, with_slope: bool, alpha: float):
    log_m = torch.logaddexp(log_q + _log(alpha), log_p.add_(_log(1 - alpha)))
    q = log_q.exp()
    log_ratio = torch.sub(log_q, log_m, out=log_m)
    value = (q * log_ratio).sum(-1)
    if not with_slope:
        return value, None
    # q·(log q/m − α·q/m), where α·q/m <= 1; the constant of the softmax's Jacobian is left out.
    return value, (log_ratio - (log_ratio + _log(alpha)).exp_()).mul_(q)


def _total_variation(log_q: torch.Tensor, log_p: torch.Tensor, with_slope: bool):
    q = log_q.exp()
    gap = torch.sub(q, log_p.exp_(), out=log_p)
    value = gap.abs().sum(-1).mul_(0.5)
    return value, gap.sign_().mul_(q).mul_(0.5) if with_slope else None


def _log(share: float) -> float:
    return math.log(share) if share > 0 else -math.inf


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} = {value} is not a share; give a number between 0 and 1")
