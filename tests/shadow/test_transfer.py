"""The transfer coefficient, clustered intervals and the check of data processing, on models of known truth."""

from __future__ import annotations

import numpy as np
import pytest

from kdleak.shadow import clustered
from kdleak.shadow.halves import halves
from kdleak.shadow.report import shadow_report
from kdleak.shadow.transfer import gains, processing, transfer


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


def test_a_mean_over_pairs_has_students_interval():
    found = clustered.mean(np.array([1.0, 2.0, 4.0]))
    assert found.value == pytest.approx(7 / 3)
    assert found.error == pytest.approx(np.std([1, 2, 4], ddof=1) / np.sqrt(3))
    assert found.high - found.value == pytest.approx(4.302653 * found.error, rel=1e-6)
    assert np.isnan(clustered.mean(np.array([1.0])).low)


def test_area_counts_ties_as_halves():
    scores, inside = np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, True, False, True])
    assert clustered.area(scores, inside) == pytest.approx((1 + 0.5 + 1 + 1) / 4)


def test_a_rate_needs_32_false_positives():
    rng = np.random.default_rng(0)
    inside = halves(range(1000), 64, 0)
    scores = rng.normal(size=inside.shape) + 2.0 * inside
    assert clustered.tpr(scores[:62], inside[:62], 0.001) is None
    found = clustered.tpr(scores, inside, 0.001)
    out = np.sort(scores[~inside])[::-1]
    assert found.value == (scores[inside] > out[32]).mean()


def test_a_student_under_its_teacher_passes_and_one_above_it_fails():
    student, teacher, inside = simulated(2)
    assert processing(student, teacher, inside, 0)["state"] == "passed"
    assert processing(teacher, student, inside, 0)["state"] == "failed"
    assert processing(teacher, teacher, inside, 0)["state"] == "passed"
    assert processing(student[:6], teacher[:6], inside[:6], 0)["state"] == "could not run"


def test_the_check_fails_rarely_where_both_tell_as_much():
    failed = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        inside = halves(range(100), 16, seed)
        first, second = rng.normal(size=(2, 16, 100)) + inside
        failed += processing(first, second, inside, seed, draws=100)["state"] == "failed"
    assert failed <= 5


def test_a_report_finds_the_leak_and_the_models_that_have_none():
    student, teacher, inside = simulated(3, pairs=8, n=150)
    rng = np.random.default_rng(9)
    clean = student.mean(0) + rng.normal(0.0, 0.15, student.shape)
    scores = {"teacher": teacher, "kd": student, "sft": clean}
    report = shadow_report(
        {name: {"loss": each, "ez": 1 / (1 + np.exp(-each))} for name, each in scores.items()}, inside, 0
    )
    found = {name: each["lira_online:loss"]["auc"] for name, each in report["attacks"].items()}
    assert found["teacher"]["low"] > found["kd"]["high"] and found["kd"]["low"] > 0.6
    assert abs(found["sft"]["value"] - 0.5) < 3 * found["sft"]["error"]
    assert found["kd"]["value"] > report["attacks"]["kd"]["loss"]["auc"]["value"]
    assert report["transfer"]["kd"]["loss"]["tau"]["low"] < 0.5 < report["transfer"]["kd"]["loss"]["tau"]["high"]
    assert report["transfer"]["sft"]["loss"]["tau"]["low"] < 0.0 < report["transfer"]["sft"]["loss"]["tau"]["high"]
    assert {each["state"] for each in report["processing"].values()} == {"passed"}
    assert sum(v for k, v in report["stability"]["kd"].items() if k.startswith("named")) == pytest.approx(1.0)


def test_shuffled_labels_say_nothing():
    _, teacher, _ = simulated(4, pairs=8, n=150)
    shuffled = halves(range(150), 16, 999)
    report = shadow_report({"teacher": {"loss": teacher, "ez": 1 / (1 + np.exp(-teacher))}}, shuffled, 0)
    for name, row in report["attacks"]["teacher"].items():
        assert abs(row["auc"]["value"] - 0.5) < 3.5 * row["auc"]["error"], name
