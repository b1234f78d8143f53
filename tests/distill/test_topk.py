"""Top-k distillation: each of its targets against TRL's numbers or a plain formula, and what it stores."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from kdleak.core.errors import KdleakError
from kdleak.distill.context import Context
from kdleak.distill.methods.topk import LOSSES, Stored, bucket, drawn, dropped, likeliest, renormalised, store, weighted
from kdleak.distill.recipes import recipe
from kdleak.models.checkpoints import load_model
from tests.support.distillation import made, params, untrained
from tests.support.trl import against_trl, every_case, trl_case


@every_case
@pytest.mark.parametrize(("k", "loss", "golden"), [
    (1, bucket, "top_1_tail"), (3, bucket, "top_3_tail"), (3, renormalised, "top_3_renormalised"),
])  # fmt: skip
def test_they_are_trls(name, k, loss, golden):
    case = trl_case(name)
    against_trl(loss(case.student, likeliest(case.teacher, k=k)), case, golden)


@every_case
@pytest.mark.parametrize("k", [1, 4, 9, 20])
def test_they_are_their_formulas(name, k):
    case = trl_case(name)
    q, p = case.student.detach().softmax(-1), case.teacher.softmax(-1)
    p_k, tokens = p.topk(min(k, 9))
    q_k = q.gather(-1, tokens)
    kl = (p_k * (p_k / q_k).log()).sum(-1)
    if k < 9:
        rest = 1 - p_k.sum(-1)
        kl = kl + rest * (rest / (1 - q_k.sum(-1))).log()
    stored = likeliest(case.teacher, k=k)
    torch.testing.assert_close(bucket(case.student.detach(), stored), kl)
    assert (kl <= (p * (p / q).log()).sum(-1) + 1e-12).all()
    p_k, both = p_k / p_k.sum(-1, keepdim=True), q_k / q_k.sum(-1, keepdim=True)
    torch.testing.assert_close(dropped(case.student.detach(), stored), (p_k * (p_k / q_k).log()).sum(-1))
    torch.testing.assert_close(renormalised(case.student.detach(), stored), (p_k * (p_k / both).log()).sum(-1))


def test_with_every_token_kept_they_are_forward_kl_and_with_one_dropped_is_the_likeliest_tokens_cross_entropy():
    case = trl_case("plain")
    log_q, log_p = case.student.log_softmax(-1), case.teacher.log_softmax(-1)
    plain = (log_p.exp() * (log_p - log_q)).sum(-1)
    for loss in (bucket, dropped, renormalised, weighted):
        torch.testing.assert_close(loss(case.student, likeliest(case.teacher, k=9)), plain)
    best = case.teacher.argmax(-1, keepdim=True)
    torch.testing.assert_close(dropped(case.student, likeliest(case.teacher, k=1)), -log_q.gather(-1, best)[:, 0])


@pytest.mark.parametrize("proposal", [1.0, 0.5])
def test_over_all_draws_the_sampled_loss_has_value_and_gradient_of_the_forward_kl(proposal, monkeypatch):
    """Every pair of draws, weighted by the probability that it is drawn with: an exact mean, no simulation."""
    case = trl_case("peaked")
    log_q, log_p = case.student.log_softmax(-1), case.teacher.log_softmax(-1)
    r = (proposal * log_p).softmax(-1)
    value = torch.zeros(5, dtype=torch.float64)
    for pair in product(range(9), repeat=2):
        tokens = torch.tensor([pair] * 5)
        monkeypatch.setattr(torch, "multinomial", lambda *_, tokens=tokens, **__: tokens)
        of_pair = weighted(case.student, drawn(case.teacher, torch.Generator(), k=2, proposal=proposal))
        value = value + r[:, pair[0]] * r[:, pair[1]] * of_pair
    plain = (log_p.exp() * (log_p - log_q)).sum(-1)
    torch.testing.assert_close(value, plain)
    gradients = [torch.autograd.grad(x.sum(), case.student)[0] for x in (value, plain)]
    torch.testing.assert_close(*gradients)


def test_tokens_are_drawn_as_often_as_the_proposal_has_them():
    teacher = trl_case("plain").teacher[:1]
    r = (0.5 * teacher.log_softmax(-1)).softmax(-1)[0]
    n = 40_000
    stored = drawn(teacher, torch.Generator().manual_seed(0), k=n, proposal=0.5)
    frequencies = stored.tokens[0].bincount(minlength=9) / n
    assert ((frequencies - r).abs() < 4 * (r * (1 - r) / n).sqrt()).all()


@pytest.mark.parametrize("tail", sorted(LOSSES))
def test_tokens_that_the_teacher_excludes_count_for_nothing_and_leave_all_finite(tail):
    teacher = torch.tensor([[2.0, 1.0, -torch.inf, -torch.inf]])
    student = torch.zeros(1, 4, requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    stored = drawn(teacher, generator, k=3, proposal=1.0) if tail == "sampled" else likeliest(teacher, k=3)
    loss = LOSSES[tail](student, stored)
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    assert loss.isfinite().all() and gradient.isfinite().all()


def test_a_small_rest_of_the_student_keeps_its_digits_in_single_precision():
    student = torch.tensor([[20.0, 0.0, -1.0]])
    stored = likeliest(torch.tensor([[1.0, 0.5, 0.0]]), k=1)
    double = Stored(stored.tokens, stored.log_probs.double(), stored.shares.double())
    torch.testing.assert_close(bucket(student, stored).double(), bucket(student.double(), double), rtol=1e-6, atol=0)


def test_what_is_stored_is_k_numbers_a_position_and_the_same_every_time(tmp_path):
    project = untrained(tmp_path)
    context = Context("topk", params(), project, load_model(project.base_student))
    records = context.references()
    signal = context.signal(records)

    def sampled(logits, generator):
        return drawn(logits, generator, k=3, proposal=0.8)

    whole, again = (store(signal, records, sampled, 5, tokens) for tokens in (10_000, 60))
    other = store(signal, records, sampled, 6, 10_000)
    assert [len(each.tokens) for each in whole] == [len(r.response) for r in records]
    assert all(each.shape[1] == 3 for kept in whole for each in kept)
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(whole, again, strict=True))
    assert any(not torch.equal(a.tokens, b.tokens) for a, b in zip(whole, other, strict=True))


@pytest.mark.parametrize("tail", sorted(LOSSES))
def test_each_of_its_targets_trains(tail, tmp_path):
    record = made("topk", untrained(tmp_path), **{"kd.recipes.topk.tail": tail, "kd.recipes.topk.k": 3})
    assert record["options"] == {"k": 3, "tail": tail, "proposal": 1.0} and record["mechanism"]["ran"]


def test_one_token_renormalised_is_refused():
    with pytest.raises(KdleakError, match=r"kd\.recipes\.topk.*one token, renormalised, has a share of 1"):
        recipe("topk", params(**{"kd.recipes.topk.k": 1, "kd.recipes.topk.tail": "renormalised"}).kd)
