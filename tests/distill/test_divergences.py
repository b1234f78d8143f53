"""Every divergence: its definition, its limits, its gradient, and what must not break it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdleak.distill.divergences import (
    DIVERGENCES,
    adaptive_kl,
    forward_kl,
    jensen_shannon,
    reverse_kl,
    skew_forward_kl,
    skew_reverse_kl,
    total_variation,
)

NAMES = sorted(DIVERGENCES)
SMOOTH = sorted(set(NAMES) - {"tvd", "akl"})
seeds = st.integers(0, 2**31 - 1)
shares = st.floats(0.01, 0.99)


def logits(seed: int, *shape: int, scale: float = 3.0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype)


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return (p * (p / q).log()).sum(-1)


def plain(name: str, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The textbook formulas, on probabilities."""
    q, p = student.softmax(-1), teacher.softmax(-1)
    if name == "jsd":
        return 0.5 * kl(q, (p + q) / 2) + 0.5 * kl(p, (p + q) / 2)
    return {
        "fkl": lambda: kl(p, q),
        "rkl": lambda: kl(q, p),
        "sfkl": lambda: kl(p, 0.1 * p + 0.9 * q),
        "srkl": lambda: kl(q, 0.9 * p + 0.1 * q),
        "tvd": lambda: (p - q).abs().sum(-1) / 2,
    }[name]()


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"akl"}))
@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_value_and_gradients_are_those_of_the_plain_formula(name, seed):
    student, teacher = logits(seed, 2, 3, 11).requires_grad_(), logits(seed + 1, 2, 3, 11).requires_grad_()
    weights = logits(seed + 2, 2, 3)
    ours, theirs = DIVERGENCES[name](student, teacher), plain(name, student, teacher)
    assert ours.shape == (2, 3)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    got = torch.autograd.grad((weights * ours).sum(), (student, teacher))
    expected = torch.autograd.grad((weights * theirs).sum(), (student, teacher))
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", SMOOTH)
def test_gradcheck_in_float64(name):
    student, teacher = logits(0, 4, 7).requires_grad_(), logits(1, 4, 7).requires_grad_()
    assert torch.autograd.gradcheck(DIVERGENCES[name], (student, teacher))


@given(seed=seeds, share=shares)
@settings(max_examples=15, deadline=None)
def test_gradcheck_at_any_weight_and_skew(seed, share):
    student, teacher = logits(seed, 2, 5).requires_grad_(), logits(seed + 1, 2, 5).requires_grad_()
    for divergence in (jensen_shannon, skew_forward_kl, skew_reverse_kl):
        assert torch.autograd.gradcheck(lambda s, t, d=divergence: d(s, t, share), (student, teacher))


@pytest.mark.parametrize("name", NAMES)
@given(seed=seeds, scale=st.floats(0.01, 30.0), shift=st.floats(-50, 50))
@settings(max_examples=15, deadline=None)
def test_zero_for_equal_distributions_and_otherwise_positive(name, seed, scale, shift):
    student, teacher = logits(seed, 5, 9, scale=scale), logits(seed + 1, 5, 9, scale=scale)
    divergence = DIVERGENCES[name]
    torch.testing.assert_close(divergence(student, student + shift), torch.zeros(5).double(), rtol=0, atol=1e-9)
    assert (divergence(student.float(), student.float()) <= 1e-5).all()
    assert (divergence(student, teacher) > 0).all()
    assert (divergence(student.float(), teacher.float()) >= 0).all()


@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_a_skew_of_zero_is_the_plain_divergence_and_of_one_is_nothing(seed):
    student, teacher = logits(seed, 4, 9), logits(seed + 1, 4, 9)
    for skewed, unskewed in ((skew_forward_kl, forward_kl), (skew_reverse_kl, reverse_kl)):
        torch.testing.assert_close(skewed(student, teacher, 0.0), unskewed(student, teacher))
        torch.testing.assert_close(skewed(student, teacher, 1e-12), unskewed(student, teacher), rtol=1e-5, atol=1e-6)
        assert (skewed(student, teacher, 1.0) < 1e-12).all()
        assert (skewed(student, teacher, 0.3) < unskewed(student, teacher)).all()


@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_jensen_shannon_tends_to_the_two_kls_at_its_ends(seed):
    student, teacher = logits(seed, 4, 9, scale=1.0), logits(seed + 1, 4, 9, scale=1.0)
    torch.testing.assert_close(
        jensen_shannon(student, teacher, 1e-7) / 1e-7, reverse_kl(student, teacher), rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(
        jensen_shannon(student, teacher, 1 - 1e-7) / 1e-7, forward_kl(student, teacher), rtol=1e-4, atol=1e-6
    )
    for end in (0.0, 1.0):
        assert (jensen_shannon(student, teacher, end) < 1e-12).all()


@given(seed=seeds, weight=shares)
@settings(max_examples=15, deadline=None)
def test_jensen_shannon_is_symmetric_at_one_half_and_exchanges_weights_elsewhere(seed, weight):
    student, teacher = logits(seed, 4, 9, scale=10.0), logits(seed + 1, 4, 9, scale=10.0)
    torch.testing.assert_close(jensen_shannon(student, teacher), jensen_shannon(teacher, student))
    torch.testing.assert_close(
        jensen_shannon(student, teacher, weight), jensen_shannon(teacher, student, 1 - weight), rtol=1e-6, atol=1e-9
    )
    assert (jensen_shannon(student, teacher) <= math.log(2) + 1e-12).all()


@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_total_variation_bounds_the_kls_as_pinsker_says(seed):
    student, teacher = logits(seed, 4, 9), logits(seed + 1, 4, 9)
    distance = total_variation(student, teacher)
    assert (distance <= 1).all()
    assert (distance <= (forward_kl(student, teacher) / 2).sqrt() + 1e-12).all()
    assert (distance <= (reverse_kl(student, teacher) / 2).sqrt() + 1e-12).all()


def test_adaptive_kl_gives_forward_kl_the_share_of_the_gap_at_the_teachers_head():
    teacher = torch.tensor([[0.6, 0.3, 0.1]]).log()
    at_head, at_tail = torch.tensor([[0.3, 0.45, 0.25]]).log(), torch.tensor([[0.6, 0.1, 0.3]]).log()
    # |p − q| = .3 at the head, .15 + .15 at the tail: halves.
    half = (forward_kl(at_head, teacher) + reverse_kl(at_head, teacher)) / 2
    torch.testing.assert_close(adaptive_kl(at_head, teacher), half)
    torch.testing.assert_close(adaptive_kl(at_tail, teacher), reverse_kl(at_tail, teacher))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_extreme_and_excluded_logits_give_finite_values_and_gradients(name, dtype):
    inf = math.inf
    student = torch.tensor(
        [[1e4, -1e4, 0, -1e4], [-inf, 1, 2, 3], [1, -inf, 2, 3], [-inf, 0, 0, 0], [0, -inf, -inf, -inf]]
    )
    teacher = torch.tensor(
        [[-1e4, 1e4, 0, -1e4], [-inf, 3, 2, 1], [1, 2, 3, 4], [0, -inf, 0, 0], [-inf, 0, -inf, -inf]]
    )
    student, teacher = student.to(dtype).requires_grad_(), teacher.to(dtype).requires_grad_()
    value = DIVERGENCES[name](student, teacher)
    assert value.isfinite().all() and (value >= 0).all()
    for gradient in torch.autograd.grad(value.sum(), (student, teacher)):
        assert gradient.dtype == dtype and gradient.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_word_that_both_models_exclude_changes_nothing(name):
    student, teacher = logits(0, 3, 8), logits(1, 3, 8)
    pad = torch.full((3, 5), -math.inf, dtype=torch.float64)
    padded = [torch.cat([x, pad], -1).requires_grad_() for x in (student, teacher)]
    value = DIVERGENCES[name](*padded)
    torch.testing.assert_close(value, DIVERGENCES[name](student, teacher))
    (gradient,) = torch.autograd.grad(value.sum(), padded[0])
    assert (gradient[:, 8:] == 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_logits_are_summed_in_float32(name, dtype):
    student, teacher = logits(0, 4, 5000, dtype=dtype), logits(1, 4, 5000, dtype=dtype)
    value = DIVERGENCES[name](student, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(
        value, DIVERGENCES[name](student.double(), teacher.double()).float(), rtol=1e-4, atol=1e-5
    )


def test_logits_are_left_as_they_were():
    for name in NAMES:
        student, teacher = logits(0, 3, 8, dtype=torch.float32), logits(1, 3, 8, dtype=torch.float32)
        before = student.clone(), teacher.clone()
        DIVERGENCES[name](student.requires_grad_(), teacher.requires_grad_()).sum().backward()
        assert torch.equal(student, before[0]) and torch.equal(teacher, before[1])


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_outside_the_unit_interval_is_refused(share):
    for name in ("jsd", "sfkl", "srkl", "akl"):
        with pytest.raises(ValueError, match="between 0 and 1"):
            DIVERGENCES[name](torch.zeros(1, 2), torch.zeros(1, 2), share)
