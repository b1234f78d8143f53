"""The bound over pairs of trainings: valid on simulated pairs, and as high as so many pairs allow."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kdleak.certify.multi_run import multi_run


def simulated(seed: int, pairs: int, gap: float, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """(values, inside): N(0, 1), raised by `gap` on record 5 of the models that had it."""
    rng = np.random.default_rng(seed)
    first = rng.permuted(np.tile(np.arange(n) % 2 == 0, (pairs, 1)), axis=1)
    inside = np.stack([first, ~first], axis=1).reshape(2 * pairs, n)
    values = rng.normal(size=inside.shape)
    values[:, 5] += gap * inside[:, 5]
    return values, inside


def test_the_bound_is_below_the_epsilon_of_the_threshold_rule_in_95_of_100_runs():
    """Two normals at distance 1, told apart in the middle: the rule itself gives away log(Φ(.5) / Φ(-.5)) = .81."""
    true = math.log(0.6915 / 0.3085)
    bounds = [multi_run({"a": values}, inside, 0.0)["epsilon_lower"] for values, inside in
              (simulated(seed, 40, 1.0, n=6) for seed in range(100))]  # fmt: skip
    assert (np.array(bounds) <= true).sum() >= 95


def test_a_record_that_is_always_told_certifies_what_the_pairs_allow():
    values, inside = simulated(1, 32, 50.0)
    noise = np.random.default_rng(0).normal(size=values.shape)
    found = multi_run({"noise": noise, "loss": values}, inside, 0.0)
    assert (found["statistic"], found["pairs"], found["true_positives"], found["false_positives"]) == (
        "loss",
        16,
        16,
        0,
    )
    low = 0.025 ** (1 / 16)
    assert found["epsilon_lower"] == found["epsilon_if_all_right"] == pytest.approx(math.log(low / (1 - low)), abs=1e-6)
    assert multi_run({"a": noise}, inside, 0.0)["epsilon_lower"] == 0


def test_the_second_half_of_the_pairs_chooses_nothing():
    values, inside = simulated(2, 16, 50.0)
    found = multi_run({"loss": values}, inside, 0.0)
    values[16:] = -values[16:]
    turned = multi_run({"loss": values}, inside, 0.0)
    assert turned["statistic"] == "loss" and turned["epsilon_lower"] == 0 < found["epsilon_lower"]


def test_one_pair_or_a_record_that_a_model_says_nothing_of_bounds_nothing():
    values, inside = simulated(3, 16, 50.0)
    assert multi_run({"loss": values[:2]}, inside[:2], 0.0) == {
        "epsilon_lower": 0.0, "epsilon_if_all_right": 0.0, "pairs": 0, "true_positives": 0, "false_positives": 0,
        "statistic": "loss",
    }  # fmt: skip
    undefined = np.where(np.arange(40) == 7, np.nan, values)
    assert multi_run({"loss": undefined}, inside, 0.0) == multi_run({"loss": values}, inside, 0.0)


def test_pairs_of_halves_replace_a_record_and_may_show_more_than_adding_one_costs():
    """A count with Laplace noise is 1-private to adding a record. Of a record of +1 and one of −1 each
    half has one: the other takes its place, which is 2-private, and a bound between 1 and 2 is right."""
    rng, pairs = np.random.default_rng(0), 400
    inside = np.tile([[True, False], [False, True]], (pairs, 1))
    count = np.where(inside[:, 0], 1.0, -1.0) + rng.laplace(size=len(inside))
    found = multi_run({"count": np.stack([count, -count], axis=1)}, inside, 0.0)
    assert 1.0 < found["epsilon_lower"] < 2.0
