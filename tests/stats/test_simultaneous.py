"""Claims on the excess over models that never met the teacher: paired, joint over attacks, above every null."""

from __future__ import annotations

import numpy as np
import pytest

from kdleak import stats

N = 150


def audit(generator: np.random.Generator, leak: float, attacks: int = 4, nulls: int = 2, split: float = 0.0) -> tuple:
    """Scores of `attacks` attacks that share most of their noise, on a student and on models without its teacher.

    split: how much members differ from non-members for every model; leak: how much more for the student.
    """
    member = np.repeat([1.0, 0.0], N)
    difficulty = generator.normal(size=2 * N)

    def model(advantage: float) -> dict[str, stats.Scores]:
        own = difficulty + 0.5 * generator.normal(size=2 * N) + advantage * member
        scores = {f"attack {k}": own + 0.3 * generator.normal(size=2 * N) for k in range(attacks)}
        return {name: (s[:N], s[N:]) for name, s in scores.items()}

    return model(split + leak), {f"null {k}": model(split) for k in range(nulls)}


def test_without_a_leak_some_attack_exceeds_every_null_in_at_most_five_percent():
    """300 audits in which the split itself gives membership away by every model."""
    generator, single, every = np.random.default_rng(0), 0, 0
    for _ in range(300):
        student, nulls = audit(generator, leak=0.0, split=0.7, nulls=1)
        every += any(e.low > 0 for e in stats.simultaneous_excess(student, nulls).values())
        one = [stats.auc_difference(student[a], nulls["null 0"][a], 0.9).low > 0 for a in student]
        single += any(one)
    assert every / 300 <= 0.075 and single > every, (every, single)


def test_the_joint_bounds_are_no_wider_than_they_must_be():
    """With one null and a leak, all lower bounds lie below the truth in about 95 % of 300 audits."""
    generator = np.random.default_rng(1)
    truth = np.mean([_value(audit(generator, leak=0.5, nulls=1), "attack 0") for _ in range(400)])
    covered = sum(
        all(e.low <= truth for e in stats.simultaneous_excess(*audit(generator, leak=0.5, nulls=1)).values())
        for _ in range(300)
    )
    assert 0.92 <= covered / 300 <= 0.985, covered


def _value(drawn: tuple, attack: str) -> float:
    student, nulls = drawn
    return stats.auc_difference(student[attack], nulls["null 0"][attack]).value


def test_the_excess_is_the_smallest_difference_and_its_bound_the_lowest():
    student, nulls = audit(np.random.default_rng(2), leak=1.0, nulls=3)
    for attack, excess in stats.simultaneous_excess(student, nulls).items():
        plain = {null: stats.auc_difference(student[attack], nulls[null][attack]).value for null in nulls}
        assert excess.value == pytest.approx(min(plain.values())) and excess.null == min(plain, key=plain.get)
        assert excess.low == min(low for _, low in excess.differences.values()) < excess.value
        assert {null: value for null, (value, _) in excess.differences.items()} == pytest.approx(plain)


def test_one_attack_and_one_null_are_a_one_sided_delong_bound():
    student, nulls = audit(np.random.default_rng(3), leak=0.5, attacks=1, nulls=1)
    excess = stats.simultaneous_excess(student, nulls)["attack 0"]
    known = stats.auc_difference(student["attack 0"], nulls["null 0"]["attack 0"], 0.9)
    assert (excess.value, excess.low) == pytest.approx((known.value, known.low))


def test_attacks_of_one_signal_cost_less_than_bonferroni():
    student, nulls = audit(np.random.default_rng(4), leak=0.5, attacks=20, nulls=1)
    joint = stats.simultaneous_excess(student, nulls)["attack 0"]
    bonferroni = stats.auc_difference(student["attack 0"], nulls["null 0"]["attack 0"], 1 - 0.1 / 20)
    assert joint.low > bonferroni.low


def test_a_student_equal_to_its_null_has_no_excess_and_undefined_scores_are_left_out():
    student, _ = audit(np.random.default_rng(5), leak=0.5)
    equal = stats.simultaneous_excess(student, {"itself": student})
    assert all(e.value == 0 and e.low < 0 for e in equal.values())
    student, nulls = audit(np.random.default_rng(6), leak=0.5)
    holed = {
        **student,
        "attack 1": (np.where(np.arange(N) < 20, np.nan, student["attack 1"][0]), student["attack 1"][1]),
    }
    kept = {name: {"attack 1": (s["attack 1"][0][20:], s["attack 1"][1])} for name, s in nulls.items()}
    alone = stats.simultaneous_excess({"attack 1": (student["attack 1"][0][20:], student["attack 1"][1])}, kept)
    assert stats.simultaneous_excess(holed, nulls)["attack 1"].value == pytest.approx(alone["attack 1"].value)
    nothing = {"attack 0": (np.full(N, np.nan), np.ones(N))}
    assert stats.simultaneous_excess(nothing, nulls) == {} == stats.simultaneous_excess(student, {})


def test_records_that_are_copies_of_each_other_narrow_nothing():
    student, nulls = audit(np.random.default_rng(7), leak=0.5, nulls=1)
    doubled = [{a: tuple(np.tile(side, 2) for side in s) for a, s in m.items()} for m in (student, nulls["null 0"])]
    groups = np.tile(np.arange(N), 2), np.tile(N + np.arange(N), 2)
    once = stats.simultaneous_excess(student, nulls)["attack 0"]
    twice = stats.simultaneous_excess(doubled[0], {"null 0": doubled[1]}, groups=groups)["attack 0"]
    assert twice.low == pytest.approx(once.low, abs=1e-6)


def test_scores_of_other_records_cannot_be_compared():
    student, _ = audit(np.random.default_rng(8), leak=0.5)
    shorter = {"null": {"attack 0": (np.ones(3), np.ones(4))}}
    with pytest.raises(ValueError, match="different records"):
        stats.simultaneous_excess(student, shorter)
