"""On-policy distillation: its estimators against TRL's numbers and plain formulas, and whose text it learns from."""

from __future__ import annotations

import json

import pytest
import torch

from kdleak.core.errors import KdleakError
from kdleak.distill.divergences import reverse_kl
from kdleak.distill.methods.opd import WrittenAhead, sampled_reverse_kl
from kdleak.distill.recipes import recipe
from kdleak.distill.rollouts import Rollouts
from kdleak.inference.generation import Sampling
from kdleak.models.checkpoints import load_model
from kdleak.training.batch_sources import FixedBatches
from tests.support.distillation import encoded, made, params, untrained
from tests.support.trl import against_trl, every_case, trl_case

TOKEN = {"kd.recipes.opd.estimator": "token"}


@every_case
def test_the_whole_vocabulary_is_trls_reverse_kl(name):
    case = trl_case(name)
    against_trl(reverse_kl(case.student, case.teacher), case, "reverse_kl")
    in_single = case.golden["reverse_kl"]["value_distillation_trainer_float32"]
    assert reverse_kl(case.student, case.teacher)[case.unmasked].mean().item() == pytest.approx(in_single, abs=1e-6)


@every_case
def test_the_gradient_of_the_drawn_token_is_trls(name):
    """TRL's value is ours times log q, a number that only its gradient has a use for."""
    case = trl_case(name)
    ours, golden = sampled_reverse_kl(case.student, case.teacher, case.tokens), case.golden["sampled_token"]
    (gradient,) = torch.autograd.grad(ours[case.unmasked].mean(), case.student)
    torch.testing.assert_close(gradient, torch.tensor(golden["gradient"]).double(), rtol=1e-6, atol=1e-6)
    log_q = case.student.log_softmax(-1).gather(-1, case.tokens[:, None])[:, 0]
    torch.testing.assert_close(ours * log_q, torch.tensor(golden["per_position"]).double(), rtol=1e-6, atol=1e-6)


@every_case
def test_over_the_students_draws_the_token_has_value_and_gradient_of_the_reverse_kl(name):
    case = trl_case(name)
    n, words = case.student.shape
    q = case.student.softmax(-1).detach()
    of_each = [sampled_reverse_kl(case.student, case.teacher, torch.full((n,), token)) for token in range(words)]
    value = (q * torch.stack(of_each, dim=-1)).sum(-1)
    log_q, log_p = case.student.log_softmax(-1), case.teacher.log_softmax(-1)
    plain = (log_q.exp() * (log_q - log_p)).sum(-1)
    torch.testing.assert_close(value, plain)
    gradients = [torch.autograd.grad(x.sum(), case.student)[0] for x in (value, plain)]
    torch.testing.assert_close(*gradients)


def test_a_token_that_the_teacher_excludes_costs_a_finite_amount():
    student = torch.zeros(1, 3, requires_grad=True)
    loss = sampled_reverse_kl(student, torch.tensor([[0.0, -torch.inf, 0.0]]), torch.tensor([1]))
    assert loss.isfinite().all() and torch.autograd.grad(loss.sum(), student)[0].isfinite().all()


@pytest.mark.parametrize("changes", [{}, TOKEN])
def test_every_token_it_learns_from_is_the_students_and_fresh(tmp_path, changes):
    record = made("opd", untrained(tmp_path), **changes)
    assert record["realised"]["student_token_share"] == 1 and record["realised"]["replayed_share"] == 0
    assert record["realised"]["rollout_age_steps"] == 0 and record["mechanism"]["ran"]
    assert record["starts_from"] == "sft" and record["lm_weight"] == 0


def test_the_token_alone_is_trained_without_dropout():
    assert recipe("opd", params(**TOKEN).kd).optimizer == {"dropout": False}
    assert recipe("opd", params().kd).optimizer == {}


def test_the_token_alone_is_refused_at_a_temperature_that_draws_from_another_distribution(tmp_path):
    with pytest.raises(KdleakError, match=r"generation\.temperature: 'opd' with estimator token takes 1 alone"):
        made("opd", untrained(tmp_path), **TOKEN, **{"generation.temperature": 0.7})


def test_texts_written_ahead_are_of_their_age_and_survive_a_stop(tmp_path):
    """Three steps an epoch, two of them written at once: the third is written anew, as is the next epoch's first."""
    project = untrained(tmp_path)
    model, records = load_model(project.model("sft")), encoded(project, "public")
    rollouts = Rollouts(Sampling(max_new_tokens=6, temperature=1.0), eos_id=0, seed=1)

    def source(ahead: int = 2) -> WrittenAhead:
        return WrittenAhead(FixedBatches(records, 4, seed=1), rollouts, 6, ahead)

    whole = source()
    batches, ages = [], []
    for step in range(6):
        batches.append(whole.batch(model, step))
        ages.append(whole.realised()["rollout_age_steps"])
        if step == 0:
            saved = json.loads(json.dumps(whole.state()))
    assert ages == [0, 1, 1, 1, 1, 1] and whole.realised()["rollout_rounds"] == 4
    assert whole.realised()["student_token_share"] == 1 and whole.realised()["replayed_share"] == 1 / 3
    again = source()
    again.restore(saved)
    for step in range(1, 6):
        assert torch.equal(again.batch(model, step).input_ids, batches[step].input_ids)
    assert again.realised() == whole.realised()
    fresh = source(1)
    assert torch.equal(fresh.batch(model, 0).input_ids, batches[0].input_ids)


def test_a_run_that_writes_ahead_says_how_old_its_texts_were(tmp_path):
    record = made("opd", untrained(tmp_path), **{"kd.recipes.opd.rollout_steps": 3})
    assert record["realised"]["rollout_age_steps"] == 2 and record["realised"]["rollout_rounds"] == 2


def test_the_token_alone_is_refused_on_text_written_ahead():
    with pytest.raises(KdleakError, match=r"kd\.recipes\.opd.*rollout_steps: estimator token learns from fresh text"):
        recipe("opd", params(**TOKEN, **{"kd.recipes.opd.rollout_steps": 2}).kd)
