"""The transfer coefficient, clustered intervals and the check of data processing, on models of known truth."""

from __future__ import annotations

import numpy as np
import pytest

from kdleak.shadow import clustered
from kdleak.shadow.halves import halves
from kdleak.shadow.report import attack_models, shadow_report
from kdleak.shadow.transfer import RATES, gains, processing, transfer


def simulated(seed, pairs=8, n=200, tau=0.5, run=0.1):
    """(student, teacher, inside): a teacher gains on what it had, its student by tau of that; each pair of trainings
    has a strength of its own (`run`), so that records of one model are no independent draws."""
    rng = np.random.default_rng(seed)
    inside = halves(range(n), 2 * pairs, seed)
    base, gain = rng.normal(-3.0, 1.0, n), np.exp(rng.normal(-1.0, 0.7, n))
    strength = np.repeat(1.0 + run * rng.normal(size=pairs), 2)[:, None]
    noise = rng.normal(0.0, 0.15, (2, 2 * pairs, n))
    student_strength = strength + np.repeat(run * rng.normal(size=pairs), 2)[:, None]
    return base + tau * student_strength * gain * inside + noise[0], base + strength * gain * inside + noise[1], inside


def test_gains_pair_a_model_with_its_complement():
    values = np.array([[1.0, 2.0], [0.5, 5.0]])
    inside = np.array([[True, False], [False, True]])
    assert gains(values, inside).tolist() == [[0.5, 3.0]]


def test_the_coefficient_is_the_ratio_of_gains():
    student, teacher, inside = simulated(0)
    found = transfer(gains(student, inside), gains(teacher, inside))
    first, second = gains(student, inside), gains(teacher, inside)
    assert found.tau.value == pytest.approx(first.sum() / second.sum(), rel=1e-12)
    clear = ~np.isnan(found.by_record)
    assert found.by_record[clear] == pytest.approx((first.mean(0) / second.mean(0))[clear])
    assert 0.9 < found.correlation <= 1.0 and found.reliability > 0.5


def test_nothing_arrives_where_nothing_was_passed_on():
    student, teacher, inside = simulated(1, tau=0.0)
    found = transfer(gains(student, inside), gains(teacher, inside))
    assert found.tau.low < 0.0 < found.tau.high


def test_intervals_over_pairs_cover():
    """Clustered by pair the interval of tau covers as it says; by record it would not."""
    runs, hits, naive = 400, 0, 0
    for seed in range(runs):
        student, teacher, inside = simulated(seed, pairs=16, n=60, run=0.3)
        first, second = gains(student, inside), gains(teacher, inside)
        found = transfer(first, second).tau
        hits += found.low <= 0.5 <= found.high
        deviations = (first - found.value * second) / second.mean()
        naive += abs(found.value - 0.5) < 1.96 * deviations.std() / np.sqrt(deviations.size)
    assert 0.925 <= hits / runs <= 0.98  # of 3,000 runs .957
    assert naive / runs < 0.8


def test_the_jackknife_of_a_mean_has_students_interval():
    numbers = np.array([1.0, 2.0, 4.0])
    found = clustered.jackknife(7 / 3, (numbers.sum() - numbers) / 2)
    assert found.error == pytest.approx(np.std([1, 2, 4], ddof=1) / np.sqrt(3))
    assert found.high - found.value == pytest.approx(4.302653 * found.error, rel=1e-6)
    assert np.isnan(clustered.jackknife(1.0, np.array([1.0])).low)


def test_area_counts_ties_as_halves():
    scores, inside = np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, True, False, True])
    assert clustered.area(scores, inside) == pytest.approx((1 + 0.5 + 1 + 1) / 4)


def test_a_rate_is_that_of_one_threshold_for_all_models():
    rng = np.random.default_rng(0)
    inside = halves(range(1000), 8, 0)
    scores = rng.normal(size=inside.shape) + 2.0 * inside
    out = np.sort(scores[~inside])[::-1]
    found = clustered.curve(scores, inside, np.array([0.01]))[0]
    assert found == pytest.approx((scores[inside] > out[40]).mean(), abs=1e-12)


def curves(models, inside):
    """TPR of scores (models, n) at RATES, of all pairs and without each."""
    pairs = np.arange(len(inside)) // 2
    kept = [pairs != left_out for left_out in (-1, *range(len(inside) // 2))]
    return np.array([clustered.curve(models[each], inside[each], RATES) for each in kept])


def checked(student, teacher, inside):
    return processing(curves(student, inside), curves(teacher, inside)[None], (RATES * (~inside).sum()).astype(int))


def test_a_student_under_its_teacher_passes_and_one_above_it_fails():
    student, teacher, inside = simulated(2, pairs=10, n=800)
    assert checked(student, teacher, inside)["state"] == "passed"
    found = checked(teacher, student, inside)
    assert found["state"] == "failed" and (found["rates"] >= 0.01).all()
    assert checked(teacher, teacher, inside)["state"] == "passed"
    assert checked(student[:14], teacher[:14], inside[:14])["state"] == "could not run"


def test_a_teacher_counts_with_its_best_attack_at_each_rate():
    student, teacher, inside = simulated(2, pairs=10, n=800)
    both = np.stack([curves(student - student.mean(0), inside), curves(teacher - teacher.mean(0), inside)])
    assert processing(both[1], both, (RATES * (~inside).sum()).astype(int))["state"] == "passed"


def test_the_check_fails_rarely_where_both_tell_as_much():
    failed = 0
    for seed in range(80):
        rng = np.random.default_rng(seed)
        inside = halves(range(200), 16, seed)
        first, second = rng.normal(size=(2, 16, 200)) + inside
        failed += checked(first, second, inside)["state"] == "failed"
    assert failed <= 6  # at most one in twenty, of 80


def test_rmia_without_a_leak_is_one_half():
    """Its constant is tuned on another pair: on the attacked model's complement it would be below (.483)."""
    found = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        inside = halves(range(100), 8, seed)
        values = rng.normal(-2.0, 1.0, 100) + rng.normal(0.0, 0.3, (8, 100))
        found.append(clustered.mean_area(attack_models({"loss": values}, inside)["rmia_offline:loss"], inside))
    assert abs(np.mean(found) - 0.5) < 3.5 * np.std(found, ddof=1) / np.sqrt(12)


def test_a_report_finds_the_leak_and_the_models_that_have_none():
    student, teacher, inside = simulated(3, pairs=8, n=160)
    rng = np.random.default_rng(9)
    clean = student.mean(0) + rng.normal(0.0, 0.15, student.shape)
    scores = {"teacher": teacher, "kd": student, "sft": clean}
    report = shadow_report(
        {name: {"loss": each, "ez": 1 / (1 + np.exp(-each))} for name, each in scores.items()}, inside
    )
    found = {name: each["lira_online:loss"]["auc"] for name, each in report["attacks"].items()}
    assert found["teacher"]["low"] > found["kd"]["high"] and found["kd"]["low"] > 0.6
    assert abs(found["sft"]["value"] - 0.5) < 3 * found["sft"]["error"]
    assert found["kd"]["value"] > report["attacks"]["kd"]["loss"]["auc"]["value"]
    assert report["transfer"]["kd"]["loss"]["tau"]["low"] < 0.5 < report["transfer"]["kd"]["loss"]["tau"]["high"]
    assert report["transfer"]["sft"]["loss"]["tau"]["low"] < 0.0 < report["transfer"]["sft"]["loss"]["tau"]["high"]
    assert report["processing"]["kd"]["state"] == "passed"
    assert sum(v for k, v in report["stability"]["kd"].items() if k.startswith("named")) == pytest.approx(1.0)


def test_shuffled_labels_say_nothing():
    _, teacher, _ = simulated(4, pairs=8, n=150)
    shuffled = halves(range(150), 16, 999)
    report = shadow_report({"teacher": {"loss": teacher, "ez": 1 / (1 + np.exp(-teacher))}}, shuffled)
    for name, row in report["attacks"]["teacher"].items():
        assert abs(row["auc"]["value"] - 0.5) < 3.5 * row["auc"]["error"], name
