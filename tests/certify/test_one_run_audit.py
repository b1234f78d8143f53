"""The audit of coins on simulated mechanisms: valid, tight, blind to the coins that it counts, and catching bugs."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from kdleak.certify.chain import BROKEN, Curve, chain
from kdleak.certify.one_run import Choice, audit_coins, choose
from kdleak.pipeline.epsilon import CURVE
from kdleak.stats.f_dp import gaussian_mu
from kdleak.stats.one_run import one_run_epsilon
from kdleak.training.gradient_rules import ClipAndNoise

DELTA = 1e-5
Released = tuple[np.ndarray, np.ndarray]


def gaussian_scores(mu: float, coins: np.ndarray, seed: int) -> np.ndarray:
    return mu * coins + np.random.default_rng(seed).normal(size=len(coins))


def drawn(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, 1])
    return rng.integers(0, 2, number).astype(bool), rng.permutation(number) < number // 2


def test_of_100_runs_of_a_gaussian_mechanism_95_bounds_lie_below_its_epsilon():
    """And the Gaussian form certifies a good part of it, from 150 coins."""
    mu, one_run, f_dp = gaussian_mu(4.0, DELTA), [], []
    for seed in range(100):
        coins, choosing = drawn(300, seed)
        found = audit_coins({"score": gaussian_scores(mu, coins, seed)}, coins, choosing, DELTA)
        one_run.append(found["one_run"]["epsilon_lower"])
        f_dp.append(found["f_dp"]["epsilon_lower"])
    assert (np.array(one_run) <= 4.0).sum() >= 95 and (np.array(f_dp) <= 4.0).sum() >= 95
    assert np.median(f_dp) > 0.5


def test_of_100_runs_of_randomised_response_95_bounds_lie_below_its_epsilon_and_near_it():
    """What the bound is tight for, attack and numbers of guesses chosen beside a score that says nothing."""
    epsilon, bounds = 2.0, []
    for seed in range(100):
        coins, choosing = drawn(300, seed)
        rng = np.random.default_rng([seed, 5])
        told = np.where(rng.random(300) < 1 / (1 + np.exp(-epsilon)), coins, ~coins) + 1e-3 * rng.random(300)
        scores = {"noise": rng.normal(size=300), "told": told}
        bounds.append(audit_coins(scores, coins, choosing, DELTA)["one_run"]["epsilon_lower"])
    assert (np.array(bounds) <= epsilon).sum() >= 95 and np.median(bounds) > 1.3


def test_a_model_that_heard_nothing_certifies_nothing_in_95_of_100_runs():
    zero = 0
    for seed in range(100):
        coins, choosing = drawn(100, seed)
        scores = {str(k): np.random.default_rng([seed, 7, k]).normal(size=100) for k in range(3)}
        zero += audit_coins(scores, coins, choosing, DELTA)["one_run"]["epsilon_lower"] == 0
    assert zero >= 95


def test_no_guess_and_no_choice_knows_a_coin_that_the_bound_counts():
    coins, choosing = drawn(400, 3)
    scores = {name: gaussian_scores(mu, coins, seed) for name, mu, seed in (("weak", 0.5, 1), ("strong", 3.0, 2))}
    first = {name: each[choosing] for name, each in scores.items()}
    choice = choose(first, coins[choosing], DELTA)
    turned = np.where(choosing, coins, ~coins)
    found, other = (audit_coins(scores, each, choosing, DELTA)["one_run"] for each in (coins, turned))
    assert choice.attack == found["attack"] == other["attack"] == "strong"
    assert found["guesses"] == other["guesses"] and found["guessed_planted"] == other["guessed_planted"]
    assert found["correct"] + other["correct"] == found["guesses"]  # the same guesses, of coins turned over
    assert found["canaries"] == 200 and found["epsilon_lower"] <= found["epsilon_if_all_right"]


def test_a_choice_leaves_room_for_how_the_other_halfs_coins_fall():
    coins = np.random.default_rng(0).integers(0, 2, 250).astype(bool)
    choice = choose({"sure": coins.astype(float)}, coins, DELTA)
    assert choice.into == choice.out == int(125 - 3 * np.sqrt(250 / 4))


def test_where_delta_is_large_no_score_decides_how_many_guesses_are_made():
    """A failure of probability δ could choose the number too, and the theorem is for one that is fixed."""
    coins, choosing = drawn(500, 6)
    for strength in (0.0, 0.7, 2.0, 9.0):
        scores = {"a": gaussian_scores(strength, coins, 7), "b": gaussian_scores(strength / 2, coins, 8)}
        assert audit_coins(scores, coins, choosing, 1e-3)["one_run"]["guesses"] == 100
        free = audit_coins(scores, coins, choosing, DELTA)["one_run"]
        assert free["guesses"] >= 25
    assert free["guesses"] == 202  # all of them right
    exact = one_run_epsilon(250, 202, 202, DELTA)
    assert exact - 0.02 < free["epsilon_lower"] < exact


def test_an_attack_that_points_the_other_way_is_turned_over_by_the_first_half():
    coins, choosing = drawn(400, 4)
    scores = gaussian_scores(3.0, coins, 5)
    found, turned = (audit_coins({"a": each}, coins, choosing, DELTA)["one_run"] for each in (scores, -scores))
    assert (found["orientation"], turned["orientation"]) == (1, -1)
    assert found["correct"] == turned["correct"] and found["epsilon_lower"] > 1.5


def test_undefined_scores_are_guessed_last_and_ties_by_position():
    guesses = Choice("a", 1, into=2, out=1).guesses(np.array([np.nan, 4.0, 1.0, 4.0, 2.0, 3.0, 4.0]))
    assert guesses.tolist() == [0, 1, -1, 1, 0, 0, 0]
    assert Choice("a", 1, 1, 1).guesses(np.full(3, np.nan)).tolist() == [1, 0, -1]


def released(coins: int, seed: int, noise: float, gradient: float = 1.0, clip: float = 1.0, steps: int = 1,
             times: int = 1) -> Released:  # fmt: skip
    """(coins, scores): what ClipAndNoise gives out, over `steps`, of records that move a parameter each; every record
    that is there is there `times`."""
    flips = np.random.default_rng([seed, 2]).integers(0, 2, coins).astype(bool)
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(coins)]
    rule = ClipAndNoise(clip, noise, expected_batch=coins, record_tokens=1, seed=seed)
    total = np.zeros(coins)
    for step in range(steps):
        for weight, flip in zip(weights, flips, strict=True):
            weight.grad = None
            for _ in range(times * flip):
                rule.backward(gradient * weight.sum() / coins, [weight])
        rule.finish(weights, step)
        total += [0.0 if weight.grad is None else weight.grad.item() for weight in weights]
    return flips, total * coins


def refuted(claimed: Curve, flips: np.ndarray, scores: np.ndarray, seed: int) -> bool:
    """Whether the link from this audit to the accountant's ε, at DELTA and along its curve, breaks."""
    _, choosing = drawn(len(flips), seed)
    found = audit_coins({"released": scores}, flips, choosing, DELTA)
    return chain({"teacher": found}, claimed[-1][0], claimed)[0]["state"] == BROKEN


def claimed(sigma: float, rate: float = 1.0, steps: int = 1) -> Curve:
    pytest.importorskip("opacus", reason="needs Opacus: pip install 'kdleak[dp]'")
    from kdleak.defend.accountant import Budget

    return [(Budget(sigma, rate, steps).epsilon(delta), delta) for delta in CURVE]


SIGMA = 2.0
#: What goes wrong -> (the release, what the accountant is told).
BUGS = {
    "no noise": (partial(released, 300, noise=0.0), {"sigma": SIGMA}),
    "a tenth of the noise": (partial(released, 300, noise=SIGMA / 10), {"sigma": SIGMA}),
    # The noise is of the size that the bound would need; the bound is not there.
    "clipping off": (partial(released, 300, noise=SIGMA / 1e3, clip=1e3, gradient=10.0), {"sigma": SIGMA}),
    "ten times the records in the accountant": (
        partial(released, 600, noise=SIGMA, steps=5), {"sigma": SIGMA, "rate": 0.1, "steps": 5},
    ),
    "a canary planted twice": (partial(released, 3000, noise=0.7, times=2), {"sigma": 0.7}),
}  # fmt: skip


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught_at_nine_of_ten_seeds(bug):
    release, told = BUGS[bug]
    believed = claimed(**told)
    assert sum(refuted(believed, *release(seed=seed), seed) for seed in range(10)) >= 9


def test_without_a_bug_no_more_than_the_error_that_is_allowed_is_refuted():
    believed = claimed(SIGMA)
    assert sum(refuted(believed, *released(300, seed, noise=SIGMA), seed) for seed in range(10)) <= 1
