"""Claims on the attack that uses the teacher: its definition, and that it accuses no student that learned nothing."""

from dataclasses import replace

import numpy as np
import pytest

from kdleak.attacks import ATTACKS, AttackInput
from kdleak.attacks.teacher_aware import _folds, without_teacher
from kdleak.auditing.controls import placebo_control
from kdleak.inference.token_statistics import TokenStatistics
from kdleak.stats import auc

ATTACK = ATTACKS["teacher_aware"]


def audit(seed, leak, n=200):
    """An audit of `n` records, every second a member that the teacher has by heart; a token's log-prob is its
    difficulty and a model's own luck. `leak`: how much of the teacher's advantage the student has taken over."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 40, n)
    member = np.arange(n) % 2 == 0
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    difficulty = generator.gamma(2.0, 1.5, offsets[-1])
    gain = np.repeat(member, lengths) * difficulty * generator.uniform(0.2, 0.8, offsets[-1])

    def model(advantage, skill=0.0, noise=0.7):
        log_prob = -np.abs(difficulty - advantage - skill + noise * generator.normal(size=offsets[-1]))
        zeros = np.zeros(offsets[-1], np.float32)
        ids = np.array([f"{i * 7919 % 9973:04d}" for i in range(n)])
        return TokenStatistics(ids, offsets, log_prob.astype(np.float32), zeros, zeros, log_prob < -1.0)

    references = {"teacher": model(gain, 0.3), "no_kd": model(0.0), "pretrained": model(0.0, -0.5)}
    return AttackInput(model(leak * gain, 0.1), references), member


def area(scores, member):
    return auc(scores[member], scores[~member])


def plain(given):
    """The definition, written out record by record."""

    def rows(statistics, i, column="log_prob"):
        return getattr(statistics, column)[statistics.offsets[i] : statistics.offsets[i + 1]].astype(float)

    features, ez = [], []
    for i in range(len(given)):
        row = []
        for name in ("no_kd", "pretrained"):
            delta = rows(given.target, i) - rows(given.references[name], i)
            k = max(1, len(delta) // 5)
            row += [np.tanh(delta).mean(), np.sort(delta)[:k].mean(), np.sort(delta)[-k:].mean()]
        features.append(row)
        delta = rows(given.references["teacher"], i) - rows(given.references["no_kd"], i)
        wrong = delta[rows(given.references["teacher"], i, "missed") > 0]
        ez.append(wrong[wrong > 0].sum() / np.abs(wrong).sum() if len(wrong) else 1.0)
    ranks = np.array([np.mean([(e > f) + 0.5 * (e == f) for f in ez]) for e in ez])
    order = sorted(range(len(given)), key=lambda i: given.target.record_ids[i])
    fold = {i: place % 5 for place, i in enumerate(order)}
    x, scores = np.array(features), []
    for i in range(len(given)):
        train = [j for j in range(len(given)) if fold[j] != fold[i]]
        mean, std = x[train].mean(0), x[train].std(0)
        z, y = (x[train] - mean) / std, ranks[train] - ranks[train].mean()
        stacked = np.vstack([z, np.sqrt(10.0) * np.eye(6)])  # ridge regression as least squares
        weights = np.linalg.lstsq(stacked, np.concatenate([y, np.zeros(6)]), rcond=None)[0]
        scores.append((x[i] - mean) / std @ weights)
    return np.array(scores)


def test_it_equals_its_definition():
    given, _ = audit(0, leak=0.5, n=60)
    np.testing.assert_allclose(ATTACK.score(given), plain(given), rtol=1e-5)


def test_a_student_that_leaks_is_found_better_than_without_the_teacher():
    areas = {name: [] for name in ("teacher_aware", "ref_pretrained", "ez", "loss")}
    for seed in range(5):
        given, member = audit(seed, leak=0.3)
        for name, found in areas.items():
            found.append(area(ATTACKS[name].score(given), member).value)
    means = {name: np.mean(found) for name, found in areas.items()}
    assert means["teacher_aware"] > 0.8 and means["teacher_aware"] == max(means.values())


def test_a_student_that_learned_nothing_is_not_accused_though_the_teacher_tells_members_apart():
    found, teacher = [], []
    for seed in range(100):
        given, member = audit(seed, leak=0.0)
        found.append(area(ATTACK.score(given), member))
        known = ATTACKS["loss"].score(replace(given, target=given.references["teacher"]))
        teacher.append(area(known, member).value)
    values = np.array([a.value for a in found])
    assert np.mean(teacher) > 0.8
    assert abs(values.mean() - 0.5) < 3 * values.std() / np.sqrt(len(values))
    assert np.mean([a.low <= 0.5 <= a.high for a in found]) >= 0.88


def test_what_the_teacher_says_of_a_record_does_not_enter_its_score():
    given, _ = audit(1, leak=0.5)
    teacher = given.references["teacher"]
    log_prob = teacher.log_prob.copy()
    log_prob[teacher.offsets[7] : teacher.offsets[8]] = -50.0
    other = replace(given, references={**given.references, "teacher": replace(teacher, log_prob=log_prob)})
    before, after = ATTACK.score(given), ATTACK.score(other)
    # Only the ranks of the others move, by one place at most.
    assert after[7] == pytest.approx(before[7], rel=0.05) and not np.array_equal(before, after)


def test_the_order_of_the_records_changes_no_score():
    given, _ = audit(2, leak=0.5, n=50)
    order = np.random.default_rng(0).permutation(50)

    def reordered(s):
        take = np.concatenate([np.arange(s.offsets[i], s.offsets[i + 1]) for i in order])
        columns = {c: getattr(s, c)[take] for c in ("log_prob", "mean", "std", "missed")}
        return TokenStatistics(s.record_ids[order], np.concatenate([[0], np.cumsum(s.lengths[order])]), **columns)

    shuffled = AttackInput(reordered(given.target), {k: reordered(v) for k, v in given.references.items()})
    np.testing.assert_allclose(ATTACK.score(shuffled), ATTACK.score(given)[order], rtol=1e-9, atol=1e-12)


def test_a_group_is_never_learned_from_and_judged_in_one():
    """With groups of four records the folds keep them whole, and a group's teacher decides no score of its own."""
    given, _ = audit(5, leak=0.5, n=80)
    groups = np.arange(80) // 4
    folds = _folds(given.target.record_ids, groups)
    assert all(len(set(folds[groups == g])) == 1 for g in range(20)) and set(folds) == set(range(5))
    order = np.random.default_rng(0).permutation(80)
    np.testing.assert_array_equal(_folds(given.target.record_ids[order], groups[order]), folds[order])
    np.testing.assert_array_equal(_folds(given.target.record_ids, np.arange(80)), _folds(given.target.record_ids, None))
    by_group = ATTACK.score(replace(given, groups=groups))
    assert not np.array_equal(by_group, ATTACK.score(given)) and np.isfinite(by_group).all()


def test_records_without_tokens_and_audits_of_one_record_are_undefined():
    given, _ = audit(3, leak=0.5, n=1)
    assert np.isnan(ATTACK.score(given)).all()
    empty = TokenStatistics(np.array(["a", "b"]), np.zeros(3, int), *(np.zeros(0) for _ in range(5)))
    nothing = AttackInput(empty, {name: empty for name in ("teacher", "no_kd", "pretrained")})
    assert np.isnan(ATTACK.score(nothing)).all()


def test_the_placebo_puts_models_in_place_that_never_met_the_teacher():
    given, member = audit(4, leak=0.8)
    assert area(ATTACK.score(given), member).value > 0.9
    placebo = without_teacher(given)
    assert placebo.target is given.references["no_kd"]
    assert placebo.references["no_kd"] is given.references["pretrained"]
    report = placebo_control(ATTACK.score(placebo), member)
    assert report["state"] == "passed" and report["auc"] == area(ATTACK.score(placebo), member).value
    control, _ = audit(5, leak=0.0)
    given = replace(given, references=given.references | {"control": control.target})
    assert without_teacher(given).target is control.target
    assert without_teacher(given).references["no_kd"] is given.references["no_kd"]
    told = placebo_control(member + 0.1 * np.random.default_rng(0).normal(size=len(member)), member)
    assert told["state"] == "failed" and "teacher itself" in told["verdict"]
