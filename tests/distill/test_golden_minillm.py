"""MiniLLM's arithmetic against that of the LMOps code (shared golden/minillm.json): `as_published` is what it does,
`corrected` what the formulas of the paper give."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch

from kdleak.distill.divergences import forward_kl, reverse_kl
from kdleak.distill.minillm import (
    future_returns,
    policy_gradient_loss,
    published_advantages,
    published_returns,
    target_log_probs,
)
from tests.support.shared import shared

DTYPES = {torch.float64: 1e-6, torch.float32: 1e-4}
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


class Golden:
    """The file, as tensors of one dtype: a row for each of the four responses."""

    def __init__(self, dtype: torch.dtype):
        content = json.loads((shared("golden") / "minillm.json").read_text())
        self.dtype, self.code, self.paper = dtype, content["as_run_distributed"], content["paper_by_formula"]
        self.settings, self.inputs, self.single = content["settings"], content["inputs"], content["single_process"]
        self.close = partial(torch.testing.assert_close, rtol=DTYPES[dtype], atol=DTYPES[dtype], check_dtype=False)
        self.mask = torch.tensor(self.code["mask"]).bool()
        self.lengths = self.code["lens"]
        self.response = torch.tensor(self.inputs["response"])

    def table(self, values) -> torch.Tensor:
        return torch.tensor(values, dtype=self.dtype)

    def rows(self, values) -> list[torch.Tensor]:
        """A (4, 6) table without its padding, row by row."""
        return [row[:n] for row, n in zip(self.table(values), self.lengths, strict=True)]

    def logits(self, name: str) -> torch.Tensor:
        """(4, 6, 11): logits of the response positions; position t is predicted one place earlier."""
        return self.table(self.inputs[name])[:, 2:8]

    def log_probs(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.log_softmax(-1).gather(-1, self.response[..., None])[..., 0]


def followers(rewards: torch.Tensor) -> torch.Tensor:
    """How many tokens follow each."""
    return torch.arange(len(rewards) - 1, -1, -1)


@each_dtype
def test_rewards_and_importance_weights_are_in_both_protocols(dtype):
    golden = Golden(dtype)
    old = golden.log_probs(golden.logits("student_logits_at_rollout"))
    teacher = golden.log_probs(golden.logits("teacher_logits"))
    mask, share = golden.mask, golden.settings["teacher_mixed_alpha"]
    golden.close(old[mask], golden.table(golden.code["old_log_probs"])[mask])
    rewards = ((teacher - old) / golden.settings["reward_scaling"]).clamp(-100, 100)
    golden.close(rewards[mask], golden.table(golden.code["rewards_scaled_clipped"])[mask])
    weights = 1 / ((1 - share) + share * (teacher - old).exp())
    golden.close(weights[mask], golden.table(golden.code["importance_w"])[mask])
    flat = golden.logits("student_logits_after_update")[mask]
    expected = golden.table(golden.code["new_log_probs"])[mask].float()
    torch.testing.assert_close(target_log_probs(flat, golden.response[mask]), expected, rtol=1e-4, atol=1e-4)


@each_dtype
def test_the_sampler_is_the_codes_mixture(dtype):
    golden = Golden(dtype)
    share, mask = golden.settings["teacher_mixed_alpha"], golden.mask
    log_q, log_p = (golden.log_probs(golden.logits(n)) for n in ("student_logits_at_rollout", "teacher_logits"))
    mixed = ((1 - share) * log_q.exp() + share * log_p.exp()).log()
    golden.close(mixed[mask], golden.table(golden.code["mix_log_probs"])[mask])
    weights = golden.table(golden.code["importance_w"])
    golden.close((log_q - weights.log())[mask], golden.table(golden.code["mix_log_probs"])[mask])


@each_dtype
def test_returns_contain_the_tokens_own_reward_in_the_code_and_not_in_the_paper(dtype):
    golden = Golden(dtype)
    rewards = golden.rows(golden.code["rewards_scaled_clipped"])
    for ours, expected in zip(rewards, golden.rows(golden.code["returns_not_whitened"]), strict=True):
        golden.close(published_returns(ours, 0.95), expected)
    for discount in (0.95, 1):
        expected = golden.rows(golden.paper[f"return_that_excludes_the_tokens_own_reward_discount_{discount}"])
        for ours, row in zip(rewards, expected, strict=True):
            # The formula's sums; the paper divides them by the number of tokens that follow.
            golden.close(future_returns(ours, discount) * followers(ours), row)


@each_dtype
def test_advantages_are_whitened_over_the_padded_mini_batch_with_the_variance_of_a_distributed_run(dtype):
    golden = Golden(dtype)
    advantages = published_advantages(golden.rows(golden.code["rewards_scaled_clipped"]), 0.95)
    for ours, expected in zip(advantages, golden.rows(golden.code["advantages_whitened"]), strict=True):
        golden.close(ours, expected)
    # A single process divides by n - 1 instead: the same advantages, smaller by a constant.
    ratio = (23 / 24) ** 0.5
    for ours, expected in zip(advantages, golden.rows(golden.single["advantages_whitened"]), strict=True):
        torch.testing.assert_close(ours * ratio, expected, rtol=1e-4, atol=1e-4)


def policy_loss(golden: Golden, logits: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    """The mean over tokens of PPO's surrogate."""
    new, old = golden.log_probs(logits), golden.table(golden.code["old_log_probs"])
    weights, mask = golden.table(golden.code["importance_w"]), golden.mask
    return policy_gradient_loss(new[mask], old[mask], weights[mask], advantages[mask], 0.2).mean()


@each_dtype
def test_surrogate_single_step_and_gradient_of_the_published_loss(dtype):
    golden = Golden(dtype)
    mask, teacher = golden.mask, golden.logits("teacher_logits")
    for name, figures in (
        ("student_logits_after_update", golden.code),
        ("student_logits_at_rollout", golden.code["at_the_old_policy"]),
    ):
        whole = golden.table(golden.inputs[name]).requires_grad_()
        logits = whole[:, 2:8]
        policy = policy_loss(golden, logits, golden.table(golden.code["advantages_whitened"]))
        single_step = reverse_kl(logits, teacher)[mask].mean()
        for ours, expected in ((policy, "pg_loss"), (single_step, "single_step_reg_loss")):
            golden.close(ours.detach(), golden.table(figures[expected]))
        golden.close((policy + single_step).detach(), golden.table(figures["rl_loss"]))
        if name == "student_logits_after_update":
            (gradient,) = torch.autograd.grad(policy + single_step, whole)
            golden.close(gradient, golden.table(golden.code["gradient_of_rl_loss_wrt_new_student_logits"]))


@each_dtype
def test_the_single_step_carries_the_importance_weight_in_the_paper(dtype):
    golden = Golden(dtype)
    mask = golden.mask
    divergence = reverse_kl(golden.logits("student_logits_after_update"), golden.logits("teacher_logits"))[mask]
    weighted = (golden.table(golden.code["importance_w"])[mask] * divergence).mean()
    golden.close(weighted, golden.table(golden.paper["single_step_reg_weighted_by_w"]))


@each_dtype
def test_the_corpus_term_mixes_cross_entropy_and_forward_kl(dtype):
    """The reference leaves the teacher's entropy in its half."""
    golden = Golden(dtype)
    student, teacher = (golden.table(golden.inputs[f"lm_{who}_logits"]) for who in ("student", "teacher"))
    labels = torch.tensor(golden.inputs["lm_labels"])
    kept = labels != -100
    cross = torch.nn.functional.cross_entropy(student[kept], labels[kept])
    log_p = teacher[kept].log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1).mean()
    soft = forward_kl(student, teacher)[kept].mean() + entropy
    for ratio in (0, 0.5, 1):
        terms = golden.code["lm_terms"][f"kd_ratio_{ratio}"]
        golden.close((1 - ratio) * cross + ratio * soft, golden.table(terms["pt_loss"]))
    total = golden.table(golden.code["rl_loss"]) + (cross + soft) / 2
    golden.close(total, golden.table(golden.code["total_loss_lm_coef_1_kd_ratio_0.5"]))


#: Golden response 2 (LMOps 4f2a9de losses.py; PAPER by formula), for every checkout.
REWARDS = [-1.04959877147314, 4.216854387807842, -1.0705984461138254, 3.5127116504737392, -2.0466821476021577]
PUBLISHED = [0.666974709933225, 1.1538085055629645, 0.13978232787509323, 0.7841818051258448, -2.0466821476021577]
PAPER = [4.615234022251858, 0.41934698362527967, 1.5683636102516896, -2.0466821476021577, 0.0]


def test_returns_carried_over():
    rewards = torch.tensor(REWARDS, dtype=torch.float64)
    assert published_returns(rewards, 0.95).tolist() == pytest.approx(PUBLISHED, rel=1e-9)
    assert (future_returns(rewards, 0.95) * followers(rewards)).tolist() == pytest.approx(PAPER, rel=1e-9)
