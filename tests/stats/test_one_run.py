"""Claims on bounds from one run: the figures of jax_privacy on every case, and a plain formula's where it is absent.

Figures: shared/golden/one_run_audit.json (google-deepmind/jax_privacy 8967688, auditing.py, dp-accounting 0.6.0);
p-values to 1e-6, epsilons to 1e-5, as they were found by bisection. Its thresholds chosen on the scores
themselves (Bonferroni, split) are not this project's rule; those at a stated threshold are compared.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from kdleak.stats.epsilon import epsilon_bound
from kdleak.stats.f_dp import choice_epsilon, f_dp_epsilon, gaussian_delta, gaussian_mu, profile_refuted
from kdleak.stats.one_run import one_run_epsilon, one_run_p_value
from kdleak.stats.operating_points import clopper_pearson
from tests.support.shared import shared


@pytest.fixture(scope="module")
def golden() -> dict:
    return json.loads(shared("golden/one_run_audit.json").read_text())


def clopper_pearson_epsilon(true: int, n_in: int, false: int, n_out: int, significance: float, delta: float) -> float:
    (low, _), (_, high) = (clopper_pearson(k, n, 1 - significance) for k, n in ((true, n_in), (false, n_out)))
    return epsilon_bound(float(low), float(high), delta)


def test_every_case_of_the_reference(golden):
    assert len(golden["cases"]) == 60
    for case in golden["cases"]:
        counts, delta, significance = (
            (case["m"], case["n_guess"], case["n_correct"]),
            case["delta"],
            case["significance"],
        )
        for epsilon, p_value in case["one_run_p_value"].items():
            assert one_run_p_value(*counts, float(epsilon), delta) == pytest.approx(p_value, abs=1e-6)
        assert one_run_epsilon(*counts, delta, significance) == pytest.approx(case["one_run_epsilon"], abs=1e-5)
        if case["fdp_one_run_epsilon"] is not None:
            assert f_dp_epsilon(*counts, delta, significance) == pytest.approx(case["fdp_one_run_epsilon"], abs=1e-5)
        if (rates := case["clopper_pearson"]) is not None:
            places = ("true_positives", "n_in", "false_positives", "n_out")
            found = clopper_pearson_epsilon(*(rates[name] for name in places), significance, delta)
            assert found == pytest.approx(rates["two_sided_epsilon"], abs=1e-5)


def test_scores_at_a_stated_threshold(golden):
    compared = 0
    for case in golden["score_cases"]:
        scores = [np.array(case[f"{side}_scores"]) for side in ("in", "out")]
        for found in (each for each in case.values() if isinstance(each, dict) and "significance" in each):
            delta, significance = found["delta"], found["significance"]
            for name, figures in found.items():
                if name.startswith("explicit_"):
                    hits, false = (int((side >= float(name.removeprefix("explicit_"))).sum()) for side in scores)
                    sizes = [len(side) for side in scores]
                    counts = sum(sizes), hits + false, hits
                    assert one_run_epsilon(*counts, delta, significance) == pytest.approx(figures["one_run"], abs=1e-5)
                    if figures["one_run_fdp"] is not None:
                        assert f_dp_epsilon(*counts, delta, significance) == pytest.approx(
                            figures["one_run_fdp"], abs=1e-5
                        )
                    rates = clopper_pearson_epsilon(hits, sizes[0], false, sizes[1], significance, delta)
                    assert rates == pytest.approx(figures["clopper_pearson_two_sided"], abs=1e-5)
                    compared += 1
    assert compared >= 6


def test_what_a_number_of_coins_can_certify():
    """At δ 0 and every guess right: ε = log(x / (1 - x)), x = .05^(1/r)."""
    for right, certified in ((12, 1.26), (100, 3.5), (250, 4.4), (500, 5.1)):
        x = 0.05 ** (1 / right)
        assert one_run_epsilon(right, right, right) == pytest.approx(math.log(x / (1 - x)), abs=1e-7)
        assert one_run_epsilon(right, right, right) == pytest.approx(certified, abs=0.02)
    assert one_run_epsilon(500, 500, 375) == pytest.approx(0.93, abs=0.01)
    assert one_run_epsilon(500, 500, 250) == 0.0 == f_dp_epsilon(500, 500, 250, 1e-5)


def test_the_p_value_is_the_plain_formula():
    for m, guesses, correct, epsilon, delta in (
        (100, 40, 33, 1.0, 1e-3),
        (250, 250, 190, 0.3, 1e-5),
        (30, 5, 0, 0.0, 0.1),
    ):
        x = math.exp(epsilon) / (1 + math.exp(epsilon))
        masses = binom.pmf(np.arange(guesses + 1), guesses, x)
        beta = masses[correct:].sum()
        alpha = max((masses[max(0, correct - i) : correct].sum() / i for i in range(1, correct + 1)), default=0.0)
        expected = min(1.0, beta + 2 * m * delta * alpha)
        assert one_run_p_value(m, guesses, correct, epsilon, delta) == pytest.approx(expected, abs=1e-12)


def test_a_number_of_guesses_that_the_training_chose_is_paid_for_by_the_mode_of_the_fewest():
    for fewest, epsilon in ((25, 1.0), (1, 3.0), (40, 0.0)):
        x = math.exp(epsilon) / (1 + math.exp(epsilon))
        mode = binom.pmf(np.arange(fewest + 1), fewest, x).max()
        expected = min(1.0, binom.sf(44, 50, x) + 2 * 250 * 1e-4 * mode)
        assert one_run_p_value(250, 50, 45, epsilon, 1e-4, fewest) == pytest.approx(expected, abs=1e-12)
        assert one_run_p_value(250, 50, 45, epsilon, 1e-4) <= expected


def test_the_gaussian_mechanism_is_tight_at_its_point():
    for epsilon, delta in ((0.0, 1e-3), (1.0, 1e-5), (8.0, 1e-6), (40.0, 1e-4)):
        mu = gaussian_mu(epsilon, delta)
        expected = norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
        assert gaussian_delta(epsilon, mu) == pytest.approx(delta, rel=1e-6)
        assert expected == pytest.approx(delta, rel=1e-4)


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 4.0])
@pytest.mark.parametrize("significance", [0.05, 0.01])
def test_of_randomised_response_the_bound_is_below_its_epsilon_as_often_as_stated_and_near_it(epsilon, significance):
    """Answers that are right with probability e^ε / (1 + e^ε): the mechanism that the bound is tight for. Over all that
    can come out, not over some runs."""
    x, coins = 1 / (1 + math.exp(-epsilon)), 500
    bounds = np.array([one_run_epsilon(coins, coins, right, 0.0, significance) for right in range(coins + 1)])
    masses = binom.pmf(np.arange(coins + 1), coins, x)
    assert 1 - significance <= masses[bounds <= epsilon].sum() < 1 - significance + 0.03
    # As near as an exact binomial interval of 500 trials lets it come: in standard errors of the log odds.
    median = bounds[np.searchsorted(masses.cumsum(), 0.5)]
    assert median > epsilon + (norm.ppf(significance) - 0.4) / math.sqrt(coins * x * (1 - x))


@pytest.mark.parametrize("alternatives", [1, 9, 99])
@pytest.mark.parametrize("epsilon", [0.5, 2.0, 4.0])
def test_of_secrets_of_many_values_the_bound_is_below_epsilon_as_often_as_stated_and_near_it(alternatives, epsilon):
    """k-ary randomised response tells the value with probability e^ε / (e^ε + k): over all that can come out."""
    x, secrets = math.exp(epsilon) / (math.exp(epsilon) + alternatives), 200
    bounds = np.array([choice_epsilon(secrets, secrets, right, 0.0, alternatives) for right in range(secrets + 1)])
    masses = binom.pmf(np.arange(secrets + 1), secrets, x)
    assert 0.95 <= masses[bounds <= epsilon].sum() < 0.99
    median = bounds[np.searchsorted(masses.cumsum(), 0.5)]
    assert median >= max(0.0, epsilon + (norm.ppf(0.05) - 0.6) / math.sqrt(secrets * x * (1 - x)) - 0.05)


def test_a_secret_of_two_values_is_a_coin():
    """Two proofs of nearly one bound; the second is the sharper where δ is large."""
    for guesses, correct, delta, slack in ((100, 90, 0.0, 0.0), (250, 190, 1e-5, 0.0), (40, 40, 1e-3, 1.0)):
        coin, choice = one_run_epsilon(250, guesses, correct, delta), choice_epsilon(250, guesses, correct, delta, 1)
        assert coin - 0.05 < choice < coin + slack
    assert choice_epsilon(100, 100, 1, 0.0, 99) == 0.0 < choice_epsilon(100, 100, 100, 1e-5, 99)


def test_of_a_mechanism_that_fails_with_probability_delta_95_of_100_bounds_hold():
    """Each of 300 secrets of 10 values is told in full with probability 1e-3, else by randomised response of ε 1."""
    rng, x, bounds = np.random.default_rng(0), math.e / (math.e + 9), []
    for _ in range(100):
        right = (rng.random(300) < np.where(rng.random(300) < 1e-3, 1.0, x)).sum()
        bounds.append(choice_epsilon(300, 300, int(right), 1e-3, 9))
    assert (np.array(bounds) <= 1.0).sum() >= 95 and np.median(bounds) > 0.4


def test_more_points_of_a_curve_refute_more():
    weak, strong = [(3.0, 1e-5)], [(3.0, 1e-5), (0.5, 0.01)]
    assert profile_refuted(250, 100, 90, strong) and not profile_refuted(250, 100, 90, weak)
    assert not profile_refuted(250, 100, 60, strong)
