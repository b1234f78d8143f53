"""MiniLLM: its returns, weights and clipping, an unbiased gradient, and a fixed point that is the teacher."""

from __future__ import annotations

import contextlib
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdleak.data.batching import collate
from kdleak.data.encoding import EncodedRecord
from kdleak.distill.divergences import forward_kl, reverse_kl
from kdleak.distill.matching import matching_objective
from kdleak.distill.methods.minillm import MiniLLM
from kdleak.distill.minillm import corpus_loss, future_returns, policy_gradient_loss, policy_objective, whitened
from kdleak.distill.minillm_rounds import PolicyBatches, score_rollouts
from kdleak.distill.rollouts import ConstantShare, RolloutBatches, Rollouts
from kdleak.distill.teacher_signal import LiveTeacher
from kdleak.inference.forward import response_logits
from kdleak.inference.generation import Sampling, TeacherMixture
from kdleak.training.batch_sources import FixedBatches, WithCorpus
from kdleak.training.finetune import cross_entropy, with_corpus_loss
from kdleak.training.loop import Recipe, train
from kdleak.training.resume import ResumeStore
from tests.support.counted import counted
from tests.support.tiny_models import random_records, tiny_model

SETTINGS = MiniLLM(rollouts=8, inner_epochs=2)
RECORDS = random_records(12, longest=10)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_a_return_is_the_discounted_mean_of_what_follows(rewards, discount):
    last = len(rewards) - 1
    expected = [
        sum(discount ** (u - t - 1) * rewards[u] for u in range(t + 1, last + 1)) / max(1, last - t)
        for t in range(last + 1)
    ]
    returns = future_returns(torch.tensor(rewards, dtype=torch.float64), discount)
    torch.testing.assert_close(returns, torch.tensor(expected, dtype=torch.float64))
    assert returns[-1] == 0


def test_whitening_centres_and_scales_and_leaves_equal_values_at_zero():
    values = whitened(torch.tensor([1.0, 2.0, 4.0, 9.0]))
    assert values.mean().abs() < 1e-6 and values.var(correction=0) == pytest.approx(1)
    assert (whitened(torch.full((5,), 3.0)) == 0).all()


@pytest.mark.parametrize(
    ("ratio", "advantage", "slope"),
    [(1.0, 2.0, -2.0), (1.0, -2.0, 2.0), (1.3, 2.0, 0.0), (1.3, -2.0, 2.6), (0.7, -2.0, 0.0), (0.7, 2.0, -1.4)],
)
def test_ppo_stops_pushing_where_the_ratio_has_left_its_range_in_the_pushed_direction(ratio, advantage, slope):
    log_prob = torch.tensor([ratio]).log().requires_grad_()
    loss = policy_gradient_loss(log_prob, torch.zeros(1), torch.ones(1), torch.tensor([advantage]), clip=0.2)
    (gradient,) = torch.autograd.grad(loss.sum(), log_prob)
    assert gradient.item() == pytest.approx(slope, abs=1e-6)


def test_rewards_are_scaled_and_clipped_and_weights_are_those_of_the_mixture():
    student, teacher = tiny_model(), tiny_model("llama", seed=4)
    tight = MiniLLM(reward_clip=1.0)
    for s, record in zip(score_rollouts(student, LiveTeacher(teacher), RECORDS, tight, 100), RECORDS, strict=True):
        batch = collate([record], [0])
        log_q, log_p = (
            response_logits(m, batch).log_softmax(-1).gather(-1, batch.targets[:, None])[:, 0].detach()
            for m in (student, teacher)
        )
        torch.testing.assert_close(torch.tensor(s.log_probs), log_q, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(torch.tensor(s.rewards), ((log_p - log_q) / 0.5).clamp(-1, 1), rtol=1e-3, atol=1e-3)
        expected = log_q.exp() / (0.8 * log_q.exp() + 0.2 * log_p.exp())
        torch.testing.assert_close(torch.tensor(s.importance), expected, rtol=1e-3, atol=1e-4)


def test_importance_weights_average_one_over_the_mixed_samplers_rollouts():
    student, teacher = tiny_model(layers=1, width=8), tiny_model("llama", seed=4, layers=1, width=8)
    rollouts = Rollouts(Sampling(8, 128, batch_size=2048), 0, 3, TeacherMixture(teacher, 0.2))
    prompts = [EncodedRecord(str(i), RECORDS[i % 12].prompt, (0,), 0) for i in range(1500)]
    written = rollouts.write(student, prompts, step=0)
    scored = score_rollouts(student, LiveTeacher(teacher), written, SETTINGS, 4096)
    weights = torch.tensor([w for s in scored for w in s.importance])
    assert weights.mean().item() == pytest.approx(1.0, abs=0.01)
    assert 0 <= weights.min() < 0.5 and weights.max() <= 1.25 + 1e-6
    unmixed = Rollouts(Sampling(8, 128, batch_size=2048), 0, 3).write(student, prompts, step=0)
    scored = score_rollouts(student, LiveTeacher(teacher), unmixed, SETTINGS, 4096)
    unmixed_weights = torch.tensor([w for s in scored for w in s.importance])
    assert unmixed_weights.mean() > 1.03


def batches(student, teacher, settings=SETTINGS) -> PolicyBatches:
    signal = LiveTeacher(teacher)
    rollouts = Rollouts(Sampling(6, 128), 0, 3, TeacherMixture(teacher, settings.teacher_share))
    return PolicyBatches(RECORDS, 4, rollouts, signal, settings, batch_tokens=200)


def test_a_round_trains_on_its_rollouts_for_the_inner_epochs_then_rolls_out_the_next_prompts():
    student, teacher = tiny_model(), tiny_model("llama", seed=4)
    source = batches(student, teacher)
    rounds = []
    for step in range(12):
        batch = source.batch(student, step)
        assert batch.written_by_student
        assert len(batch.log_probs) == len(batch.importance) == len(batch.advantages) == len(batch.targets)
        last = torch.cat([batch.rows[1:] != batch.rows[:-1], torch.tensor([True])])
        assert (batch.advantages[last] == 0).all()
        rounds.append({r.record.record_id for r in source._scored})
    # 12 prompts in rounds of 8 (two inner epochs of two batches) and 4 (two of one), in either order.
    for half in (rounds[:6], rounds[6:]):
        assert sorted(len(r) for r in half) == [4] * 2 + [8] * 4
        assert half[0] | half[5] == {r.record_id for r in RECORDS} and not half[0] & half[5]
    assert source.steps_per_epoch == 3


def test_the_lm_loss_is_added_to_the_policy_loss():
    student, teacher = tiny_model(), tiny_model("llama", seed=4)
    source = WithCorpus(batches(student, teacher), FixedBatches(RECORDS, 3, seed=2))
    batch = source.batch(student, 0)
    signal = LiveTeacher(teacher)
    objective = policy_objective(signal, SETTINGS.ppo_clip)
    alone, half = objective(student, batch), with_corpus_loss(objective, 0.5)(student, batch)
    torch.testing.assert_close(half - alone, 0.5 * cross_entropy(student, batch.corpus))
    published = with_corpus_loss(objective, 0.5, corpus_loss(signal))(student, batch)
    kl = matching_objective(signal, forward_kl)(student, batch.corpus)
    torch.testing.assert_close(published - alone, 0.25 * (cross_entropy(student, batch.corpus) + kl))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_ratio_starts_at_one_in_the_precision_of_the_updates(precision):
    student, teacher = tiny_model(), tiny_model("llama", seed=4)
    rollouts = Rollouts(Sampling(6, 128), 0, 3, TeacherMixture(teacher, 0.2))
    options = {"batch_tokens": 4000, "precision": precision}
    batch = PolicyBatches(RECORDS, 12, rollouts, LiveTeacher(teacher), MiniLLM(rollouts=12), **options).batch(
        student, 0
    )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        updated = response_logits(student, batch).float().log_softmax(-1).gather(-1, batch.targets[:, None])[:, 0]
    exact = response_logits(student, batch).log_softmax(-1).gather(-1, batch.targets[:, None])[:, 0].detach()
    ratio, of_two_precisions = (updated - batch.log_probs).exp(), (updated - exact).exp()
    assert (ratio - 1).abs().max() < 1e-4
    assert precision == "fp32" or (of_two_precisions - 1).abs().max() > 1e-2


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 4, 5])
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(tmp_path, stop):
    teacher, recipe = tiny_model("llama", seed=4), Recipe(lr=3e-3, epochs=3, batch_size=4, schedule="constant")
    objective = policy_objective(LiveTeacher(teacher), SETTINGS.ppo_clip)

    def interrupt(done: int) -> None:
        if done == stop + 1:
            raise Stopped

    whole, stopped, resumed = tiny_model(), tiny_model(), tiny_model()
    history = train(whole, batches(whole, teacher), objective, recipe, seed=1)
    store, options = ResumeStore(tmp_path / "state", key="run"), {"seed": 1, "save_every_s": -1}
    with contextlib.suppress(Stopped):
        source = batches(stopped, teacher)
        train(stopped, source, objective, recipe, resume=store, progress=counted(interrupt), **options)
    assert train(resumed, batches(resumed, teacher), objective, recipe, resume=store, **options) == history
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


# A toy language of three words and EOS, texts of at most three tokens: every text can be counted.
WORDS, LONGEST = 4, 3
PREFIXES = [p for n in range(LONGEST) for p in itertools.product(range(1, WORDS), repeat=n)]


def toy(seed: int, spread: float):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    ids = {"vocab_size": WORDS, "bos_token_id": 0, "eos_token_id": 0}
    rates = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "initializer_range": spread}
    return GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=24, n_head=2, n_positions=8, **ids, **rates)).eval()


TEXTS = [(*p, w) for p in PREFIXES for w in range(WORDS) if w == 0 or len(p) == LONGEST - 1]


@torch.no_grad()
def text_probs(model) -> torch.Tensor:
    """The probability of every text as an answer to the prompt 1."""
    batch = collate([EncodedRecord(str(i), (1,), text, len(text)) for i, text in enumerate(TEXTS)], range(len(TEXTS)))
    log_probs = response_logits(model, batch).log_softmax(-1).gather(-1, batch.targets[:, None])[:, 0]
    return torch.zeros(len(TEXTS)).index_add(0, batch.rows, log_probs).exp()


def distance(student, teacher) -> float:
    """Total variation between what student and teacher answer."""
    return 0.5 * (text_probs(student) - text_probs(teacher)).abs().sum().item()


PROMPTS = [EncodedRecord(str(i), (1,), (0,), 0) for i in range(512)]
SHORT = Sampling(LONGEST, 8, batch_size=512)


def towards(teacher, technique: str):
    """Batches and objective of the technique, on the toy language."""
    signal = LiveTeacher(teacher)
    if technique == "rkl":
        rollouts = RolloutBatches(FixedBatches(PROMPTS, 128, 1), ConstantShare(1.0), Rollouts(SHORT, 0, 3), 160)
        return rollouts, matching_objective(signal, reverse_kl)
    settings = MiniLLM(rollouts=512, inner_epochs=2)
    mixed = Rollouts(SHORT, 0, 3, TeacherMixture(teacher, settings.teacher_share))
    return PolicyBatches(PROMPTS, 128, mixed, signal, settings, 4096), policy_objective(signal, settings.ppo_clip)


@pytest.mark.parametrize("technique", ["minillm", "rkl"])
def test_the_fixed_point_is_the_teacher(technique):
    student, teacher = toy(1, 0.05), toy(2, 0.2)
    assert distance(student, teacher) > 0.5
    recipe = Recipe(lr=0.01, epochs=40, batch_size=128, weight_decay=0.0)
    train(student, *towards(teacher, technique), recipe, seed=1)
    assert distance(student, teacher) < 0.06


def test_the_teacher_itself_is_not_moved():
    teacher, student = toy(2, 0.6), toy(2, 0.6)
    source, objective = towards(teacher, "minillm")
    batch = source.batch(student, 0)
    torch.testing.assert_close(batch.importance, torch.ones(len(batch.targets)), rtol=0, atol=1e-4)
    objective(student, batch).backward()
    assert all(p.grad.abs().max() < 1e-4 for p in student.parameters())


def test_the_gradient_is_that_of_the_reverse_kl_of_whole_texts():
    """Undiscounted, unnormalised and sampled by the student, single step and later rewards make the exact gradient."""
    student, teacher = toy(1, 0.3), toy(2, 0.6)
    texts = TEXTS
    records = [EncodedRecord(str(i), (1,), text, len(text)) for i, text in enumerate(texts)]
    batch = collate(records, range(len(records)))
    log_q, log_p = (response_logits(m, batch).log_softmax(-1) for m in (student, teacher))
    pick = batch.targets[:, None]
    taken_q, taken_p = log_q.gather(-1, pick)[:, 0], log_p.gather(-1, pick)[:, 0].detach()
    rows = batch.rows

    def summed(x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(texts)).index_add(0, rows, x)

    text_q = summed(taken_q).exp()
    assert text_q.sum().item() == pytest.approx(1, abs=1e-5)
    exact = (text_q * (summed(taken_q) - summed(taken_p))).sum()
    expected = torch.autograd.grad(exact, list(student.parameters()), retain_graph=True)

    rewards = (taken_p - taken_q).detach().split([len(t) for t in texts])
    later = [torch.tensor([r[t + 1 :].sum() for t in range(len(r))]) for r in rewards]
    assert torch.equal(later[-1] / torch.tensor([2.0, 1.0, 1.0]), future_returns(rewards[-1], 1.0))
    policy = policy_gradient_loss(taken_q, taken_q.detach(), torch.ones_like(taken_q), torch.cat(later), clip=1.0)
    single = (log_q.exp() * (log_q - log_p.detach())).sum(-1)
    surrogate = (text_q.detach() * summed(policy + single)).sum()
    got = torch.autograd.grad(surrogate, list(student.parameters()))
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5)
