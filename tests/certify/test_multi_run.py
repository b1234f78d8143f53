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
