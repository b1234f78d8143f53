"""Losses in chunks of positions are the losses of the whole batch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kdleak.distill.divergences import DIVERGENCES
from kdleak.distill.matching import divergence_loss
from kdleak.training.chunked_loss import chunked_loss, language_model_loss


def models(positions: int, vocabulary: int, bias: bool = False, dtype: torch.dtype = torch.float64):
    torch.manual_seed(positions * 1000 + vocabulary)
    student, teacher = torch.nn.Linear(6, vocabulary, bias), torch.nn.Linear(10, vocabulary, bias)
    student_hidden = torch.randn(positions, 6, dtype=dtype).requires_grad_()
    return student_hidden, student.to(dtype), torch.randn(positions, 10, dtype=dtype), teacher.to(dtype)


def gradients(loss: torch.Tensor, hidden: torch.Tensor, head: torch.nn.Linear) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(loss, (hidden, *head.parameters()))


@pytest.mark.parametrize("name", sorted(DIVERGENCES))
@given(positions=st.integers(1, 20), chunk=st.integers(1, 25), bias=st.booleans())
@settings(max_examples=10, deadline=None)
def test_chunked_equals_unchunked(name, positions, chunk, bias):
    hidden, head, teacher_hidden, teacher_head = models(positions, 13, bias)
    divergence = DIVERGENCES[name]
    chunked = divergence_loss(hidden, head, teacher_hidden, teacher_head, divergence, chunk=chunk)
    whole = divergence(head(hidden), teacher_head(teacher_hidden).detach()).mean()
    torch.testing.assert_close(chunked, whole, rtol=1e-6, atol=1e-6, check_dtype=False)
    torch.testing.assert_close(gradients(chunked, hidden, head), gradients(whole, hidden, head), rtol=1e-6, atol=1e-6)


def test_chunked_equals_unchunked_to_1e_6_in_float32():
    hidden, head, teacher_hidden, teacher_head = models(300, 500, dtype=torch.float32)
    chunked = divergence_loss(hidden, head, teacher_hidden, teacher_head, DIVERGENCES["fkl"], chunk=64)
    whole = DIVERGENCES["fkl"](head(hidden), teacher_head(teacher_hidden).detach()).mean()
    torch.testing.assert_close(chunked, whole, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradients(chunked, hidden, head), gradients(whole, hidden, head), rtol=1e-5, atol=1e-6)


def test_language_model_loss_is_cross_entropy():
    hidden, head, _, _ = models(11, 13)
    targets = torch.arange(11) % 13
    chunked = language_model_loss(hidden, head, targets, chunk=4)
    whole = F.cross_entropy(head(hidden), targets)
    torch.testing.assert_close(chunked.double(), whole, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradients(chunked, hidden, head), gradients(whole, hidden, head), rtol=1e-5, atol=1e-6)


def test_a_kd_ratio_mixes_divergence_and_cross_entropy():
    """The `kd-ratio` of the study's scripts: ratio · KL(p ‖ q) + (1 − ratio) · cross-entropy, .5 in LLaMA's."""
    hidden, head, teacher_hidden, teacher_head = models(11, 13)
    targets = torch.arange(11) % 13
    options = {"chunk": 4, "targets": targets, "kd_ratio": 0.7}
    chunked = divergence_loss(hidden, head, teacher_hidden, teacher_head, DIVERGENCES["fkl"], **options)
    log_q, log_p = head(hidden).log_softmax(-1), teacher_head(teacher_hidden).detach().log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    whole = 0.7 * kl + 0.3 * F.nll_loss(log_q, targets)
    torch.testing.assert_close(chunked.double(), whole, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradients(chunked, hidden, head), gradients(whole, hidden, head), rtol=1e-5, atol=1e-6)


def test_weights_make_a_weighted_sum_and_a_later_scale_scales_every_gradient():
    hidden, head, teacher_hidden, teacher_head = models(9, 13)
    weights = torch.rand(9, dtype=torch.float64)
    divergence = DIVERGENCES["jsd"]
    chunked = 3 * divergence_loss(hidden, head, teacher_hidden, teacher_head, divergence, weights, chunk=4)
    whole = 3 * (weights * divergence(head(hidden), teacher_head(teacher_hidden).detach())).sum()
    torch.testing.assert_close(chunked, whole)
    torch.testing.assert_close(gradients(chunked, hidden, head), gradients(whole, hidden, head))


def test_a_head_tied_to_the_embedding_collects_both_gradients():
    embedding = torch.nn.Embedding(13, 6)
    head = torch.nn.Linear(6, 13, bias=False)
    head.weight = embedding.weight
    tokens = torch.arange(9)
    language_model_loss(embedding(tokens).tanh(), head, tokens, chunk=4).backward()
    tied = embedding.weight.grad.clone()
    embedding.weight.grad = None
    F.cross_entropy(head(embedding(tokens).tanh()), tokens).backward()
    torch.testing.assert_close(tied, embedding.weight.grad)


def test_a_frozen_head_and_an_evaluation_need_no_gradient():
    hidden, head, teacher_hidden, teacher_head = models(9, 13)
    head.requires_grad_(False)
    arguments = (hidden, head, teacher_hidden, teacher_head, DIVERGENCES["fkl"])
    loss = divergence_loss(*arguments, chunk=4)
    loss.backward()
    assert head.weight.grad is None and hidden.grad.isfinite().all()
    with torch.no_grad():
        torch.testing.assert_close(divergence_loss(*arguments, chunk=4), loss.detach())


def test_bfloat16_states_accumulate_the_heads_gradient_in_float32():
    hidden, head, _, _ = models(512, 13, dtype=torch.bfloat16)
    targets = torch.zeros(512, dtype=torch.long)
    chunked = language_model_loss(hidden, head, targets, chunk=8)
    got = gradients(chunked, hidden, head)
    exact_hidden, exact_head = hidden.detach().double().requires_grad_(), torch.nn.Linear(6, 13, bias=False).double()
    exact_head.load_state_dict({"weight": head.weight.detach().double()})
    expected = gradients(F.cross_entropy(exact_head(exact_hidden), targets), exact_hidden, exact_head)
    assert got[1].dtype == torch.bfloat16
    torch.testing.assert_close(got[1].double(), expected[1], rtol=0.02, atol=2e-4)


def test_no_more_than_a_chunk_of_logits_exists_at_once():
    hidden, head, _, _ = models(100, 13)
    seen = []

    def position_loss(logits, positions):
        seen.append(len(logits))
        return logits.logsumexp(-1)

    chunked_loss(hidden, head, position_loss, chunk=32).backward()
    assert seen == [32, 32, 32, 4]
