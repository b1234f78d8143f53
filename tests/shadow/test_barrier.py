"""Δ_net: a student against control teachers that are as useful, on models of known truth."""

from __future__ import annotations

import numpy as np
import pytest

from kdleak.shadow.barrier import barrier, usefulness
from kdleak.shadow.halves import halves
from kdleak.shadow.report import measure, shadow_report


def models(gain, level, seed, pairs=6, n=120):
    """(statistics, inside): models that gain `gain` nats on what they had, at `level` nats on the rest."""
    rng, inside = np.random.default_rng(seed), halves(range(n), 2 * pairs, 3)
    record = np.random.default_rng(99).normal(0.0, 1.0, n)
    loss = level + record + gain * inside + rng.normal(0.0, 0.3, inside.shape)
    return {"loss": loss, "ez": 1.0 / (1.0 + np.exp(-loss))}, inside


def test_usefulness_is_of_the_records_that_a_model_had_not():
    log_probs = np.array([[-1.0, -9.0], [-9.0, -3.0], [-2.0, -9.0], [-9.0, -4.0]])
    inside = np.array([[False, True], [True, False]] * 2)
    assert usefulness(log_probs, inside).tolist() == [-2.5, -3.0, -2.0]


def test_of_the_peers_the_one_that_leaks_least_counts():
    useful = {"kd": -5.0, "teacher": -4.0, "early_stop=1": -5.5, "early_stop=2": -4.9, "regularise=0.2": -6.0}
    leak = {"kd": 0.8, "teacher": 0.95, "early_stop=1": 0.6, "early_stop=2": 0.7, "regularise=0.2": 0.5}
    of, by = ({name: np.full(3, value) for name, value in each.items()} for each in (useful, leak))
    kinds = {"early_stop": ["teacher", "early_stop=1", "early_stop=2"], "regularise": ["regularise=0.2"]}
    found = barrier("kd", kinds, of, by)
    assert found["against"]["early_stop"]["arm"] == "early_stop=2"
    assert found["against"]["early_stop"]["net"]["value"] == pytest.approx(-0.1)
    assert found["against"]["early_stop"]["more_useful_by"]["value"] == pytest.approx(0.1)
    assert found["against"]["regularise"] is None  # none is as useful


@pytest.mark.parametrize(("gain", "sign"), [(0.2, 1), (0.9, -1)])
def test_a_barrier_and_a_regulariser_are_told_apart(gain, sign):
    """The arm gains .5 nats at the student's usefulness: a student that gains less is behind a barrier."""
    scores = {}
    for seed, (name, learned, level) in enumerate(
        [("teacher", 1.0, -4.0), ("kd", gain, -5.0), ("early_stop=1", 0.5, -4.9), ("regularise=0.2", 0.1, -6.0)]
    ):
        scores[name], inside = models(learned, level, seed)
    found = shadow_report(scores, inside, ["early_stop=1", "regularise=0.2"])
    net = found["barrier"]["students"]["kd"]["against"]["early_stop"]["net"]
    assert sign * net["low"] > 0 and sign * net["high"] > 0
    own = {name: measure({"loss": scores[name]["loss"]}, inside) for name in ("kd", "early_stop=1")}
    leak = [own[name]["lira_online:loss"][0, 0] for name in ("early_stop=1", "kd")]
    assert net["value"] == pytest.approx(leak[0] - leak[1], abs=1e-12)
    assert found["barrier"]["students"]["kd"]["against"]["regularise"]["arm"] == "teacher"
    assert set(found["transfer"]) == {"kd"}  # an arm learns from no teacher
