"""Attacks with shadows against plain loops in float64, and against the references' figures."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import norm, t

from kdleak.shadow import attacks
from kdleak.shadow.attacks import held_out
from kdleak.shadow.halves import halves
from kdleak.shadow.report import attack_models
from tests.support.shared import shared


@pytest.fixture(scope="module")
def made():
    """(values, inside): 12 models, 9 records."""
    rng = np.random.default_rng(3)
    inside = halves(range(9), 12, 0)
    return rng.normal(-2.0, 1.0, 9) + 0.5 * inside + rng.normal(0.0, 0.2, (12, 9)), inside


def sides(values, inside, model, record):
    """Values of a record under the shadows of a model, IN and OUT, by plain loops."""
    found = {True: [], False: []}
    for other in range(len(values)):
        if other // 2 != model // 2:
            found[bool(inside[other, record])].append(values[other, record])
    return np.array(found[True]), np.array(found[False])


def pooled(values, inside, model, side):
    squares, freedom = 0.0, 0
    for record in range(values.shape[1]):
        chosen = sides(values, inside, model, record)[side]
        squares, freedom = squares + ((chosen - chosen.mean()) ** 2).sum(), freedom + len(chosen) - 1
    return np.sqrt(squares / freedom)


def test_a_model_is_attacked_by_neither_itself_nor_its_complement(made):
    values, inside = made
    shadows = held_out(values, inside, 5)
    assert len(shadows.values) == 10
    assert not any((row == values[k]).all() for row in shadows.values for k in (4, 5))
    assert (shadows.inside.sum(0) == 5).all()  # every record is IN as many shadows as OUT of them


def test_lira_with_few_shadows_equals_a_plain_loop(made):
    values, inside = made
    for model in (0, 7):
        online = attacks.lira_online(values[model], held_out(values, inside, model))
        offline = attacks.lira_offline(values[model], held_out(values, inside, model))
        sd_in, sd_out = pooled(values, inside, model, 0), pooled(values, inside, model, 1)
        for record in range(9):
            with_it, without = sides(values, inside, model, record)
            s = values[model, record]
            expected = norm.logpdf(s, with_it.mean(), sd_in) - norm.logpdf(s, without.mean(), sd_out)
            assert online[record] == pytest.approx(expected, abs=1e-9)
            assert offline[record] == pytest.approx((s - without.mean()) / sd_out, abs=1e-9)


def test_lira_with_many_shadows_gives_each_record_its_own_variance():
    rng = np.random.default_rng(0)
    inside = halves(range(4), 70, 0)
    values = rng.normal(0.0, [0.1, 1.0, 2.0, 4.0], (70, 4))
    online = attacks.lira_online(values[3], held_out(values, inside, 3))
    for record in range(4):
        with_it, without = sides(values, inside, 3, record)
        s = values[3, record]
        expected = norm.logpdf(s, with_it.mean(), with_it.std(ddof=1)) - norm.logpdf(
            s, without.mean(), without.std(ddof=1)
        )
        assert online[record] == pytest.approx(expected, abs=1e-9)


def test_rmia_equals_a_plain_loop(made):
    values, inside = made
    online = attacks.rmia_online(values[2], held_out(values, inside, 2))
    offline = attacks.rmia_offline(values[2], held_out(values, inside, 2), 0.4)
    for record in range(9):
        with_it, without = (np.exp(side).mean() for side in sides(values, inside, 2, record))
        s = np.exp(values[2, record])
        assert online[record] == pytest.approx(np.log(s / ((with_it + without) / 2)), abs=1e-9)
        assert offline[record] == pytest.approx(np.log(s / ((1.4 * without + 0.6) / 2)), abs=1e-9)


def test_a_student_t_predicts_a_further_value():
    """Of many records with variances from a known inverse gamma, the prior that was drawn from is found, and the
    predictive interval of a further value covers as often as it says, where a normal of three values does not."""
    rng = np.random.default_rng(1)
    n, count, shape, rate = 20_000, 3, 4.0, 2.0
    deviation = np.sqrt(rate / rng.gamma(shape, 1.0, n))
    values = rng.normal(0.0, deviation, (count, n))
    scale, freedom = attacks._predictive(values, np.ones((count, n), bool))
    assert freedom[0] == pytest.approx(2 * shape + count - 1, rel=0.1)
    further = rng.normal(0.0, deviation)
    reach = t.ppf(0.975, freedom) * scale
    assert np.mean(np.abs(further - values.mean(0)) < reach) == pytest.approx(0.95, abs=0.006)
    naive = norm.ppf(0.975) * values.std(0, ddof=1)
    assert np.mean(np.abs(further - values.mean(0)) < naive) < 0.85


def test_bavaria_is_the_log_ratio_of_two_predictive_densities(made):
    values, inside = made
    online = attacks.bavaria_online(values[4], held_out(values, inside, 4))
    shadows = held_out(values, inside, 4)
    expected = 0.0
    for sign, chosen in ((1, shadows.inside), (-1, ~shadows.inside)):
        scale, freedom = attacks._predictive(shadows.values, chosen)
        mean = np.array([shadows.values[chosen[:, i], i].mean() for i in range(9)])
        expected += sign * t.logpdf(values[4], freedom, mean, scale)
    assert online == pytest.approx(expected, abs=1e-9)


def test_with_equal_variances_bavaria_ranks_as_lira_does():
    rng = np.random.default_rng(5)
    inside = halves(range(300), 16, 0)
    values = rng.normal(0.0, 1.0, 300) + 0.3 * inside + rng.normal(0.0, 0.3, (16, 300))
    lira = attacks.all_models(attacks.lira_online, values, inside)
    bavaria = attacks.all_models(attacks.bavaria_online, values, inside)
    assert np.corrcoef(lira.ravel(), bavaria.ravel())[0, 1] > 0.97


def test_every_attack_is_blind_to_what_the_attacked_model_was_trained_on(made):
    """Other labels of the attacked pair change no score of it."""
    values, inside = made
    before = attack_models({"loss": values, "ez": values}, inside)
    swapped = inside.copy()
    swapped[[6, 7]] = inside[[7, 6]]
    after = attack_models({"loss": values, "ez": values}, swapped)
    for name in before:
        if name != "rmia_offline:loss":  # its constant is chosen on the complement, whose records the attacker knows
            assert after[name][6] == pytest.approx(before[name][6])


def test_lira_equals_the_references():
    """PrivacyGuard's online LiRA with each record's own spread: the same densities, from its own means and spreads."""
    golden = json.loads(shared("golden/attacks.json").read_text())["shadow"]
    given, phi = golden["lira_privacyguard_inputs"], np.array(golden["phi"])
    target = phi[golden["target_model"]]
    columns = [np.array(given[f"score_{what}_{side}"]) for side in ("in", "out") for what in ("mean", "std")]
    found = attacks.log_normal(target, *columns[:2]) - attacks.log_normal(target, *columns[2:])
    assert found == pytest.approx(np.array(golden["lira_privacyguard"]["online_std_mix_own_variance"]), abs=1e-6)


def test_rmia_equals_the_references():
    """ml_privacy_meter's score is the share of a population that a record's ratio beats: computed from our ratios and
    its population it is the same number."""
    golden = json.loads(shared("golden/attacks.json").read_text())["shadow"]
    signal, population = (1.0 / (1.0 + np.exp(-np.array(golden[key]))) for key in ("phi", "population_phi"))
    inside = np.array(golden["keep"], bool)
    compared = 0
    for case in golden["ml_privacy_meter"].values():
        for name, theirs in case["scores_attacks_py"].items():
            references, a = int(name.split("_")[1]), float(name.split("_")[3])
            left = [k for k in range(len(signal)) if k // 2 != case["target"] // 2][: 2 * references]
            # Its P_out: the mean of the `references` largest signals of models without the record.
            out, z_out = (
                np.sort(side, 0)[::-1][:references].mean(0)
                for side in (np.where(inside[left], 0.0, signal[left]), population[left])
            )
            shadows = attacks.Shadows(np.log(np.stack([out, out])), np.tile([[True], [False]], len(out)))
            ours = attacks.rmia_offline(np.log(signal[case["target"]]), shadows, a)
            z = attacks.rmia_offline(
                np.log(population[case["target"]]),
                attacks.Shadows(np.log(np.stack([z_out, z_out])), np.tile([[True], [False]], len(z_out))),
                a,
            )
            beaten = (np.exp(ours)[:, None] / np.exp(z)[None] > 1).mean(1)
            assert beaten == pytest.approx(np.array(theirs), abs=1e-6), name
            compared += 1
    assert compared >= 15
