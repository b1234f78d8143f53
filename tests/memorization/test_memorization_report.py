"""memorization.json: every figure beside the no-KD student's, and what was inherited."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from kdleak.core.errors import KdleakError
from kdleak.core.files import json_text
from kdleak.memorization.report import EXACT, FIGURES, THRESHOLDS, Memorization, memorization_report
from kdleak.stats.gap import mean_gap

N = 20


def table(accuracy: np.ndarray, **columns: object) -> pd.DataFrame:
    """20 members, then 20 non-members, of two tasks; all figures follow from the token accuracy."""
    whole = (accuracy == 1).astype(float)
    frame = pd.DataFrame(
        {
            "record_id": [f"{i:02d}" for i in range(2 * N)],
            "role": ["member"] * N + ["nonmember"] * N,
            "task": ["summarization", "open_qa"] * N,
            "group_id": [f"g{i:02d}" for i in range(2 * N)],
            "length": 40,
            "log_p": np.where(whole == 1, np.log(0.5), -80.0),
            "token_accuracy": accuracy,
            "token_accuracy_as_published": accuracy / 2,
            "correct_prefix": 32 * whole,
            "reproduced": whole,
            "rouge_l": accuracy,
            "edit_similarity": accuracy,
            **{f"exact_{k}": whole if k < 50 else np.nan for k in EXACT},
        }
    )
    return frame.assign(**columns)


def accuracies(members: list[float], nonmembers: list[float]) -> np.ndarray:
    return np.array([(values * N)[:N] for values in (members, nonmembers)]).ravel()


TEACHER = accuracies([1.0, 1.0, 1.0, 0.55], [0.25, 0.75])
STUDENT = accuracies([1.0, 0.5, 1.0, 0.5], [0.25, 0.5])
NO_KD = accuracies([0.5, 0.5, 1.0, 0.0], [0.25, 0.5])


@pytest.fixture
def report() -> dict:
    return memorization_report(
        Memorization(table(STUDENT)), teacher=Memorization(table(TEACHER)), no_kd=Memorization(table(NO_KD))
    )


def test_every_figure_stands_beside_that_of_the_student_without_a_teacher(report):
    figure = report["token_accuracy"]
    assert (figure["members"], figure["nonmembers"], figure["gap"]) == (0.75, 0.375, 0.375)
    assert (figure["no_kd"]["members"], figure["no_kd"]["gap"]) == (0.5, 0.125)
    assert (figure["excess"]["members"], figure["excess"]["nonmembers"], figure["excess"]["gap"]) == (0.25, 0, 0.25)
    gap = mean_gap(STUDENT[:N], STUDENT[N:])
    assert figure["gap_ci95"] == [gap.low, gap.high]
    # Paired: the interval of the differences is narrower than the two gaps' own.
    low, high = figure["excess"]["gap_ci95"]
    assert 0 < low < 0.25 < high
    for name in FIGURES:
        shown = report["exact_match"][name[6:]] if name.startswith("exact_") else report[name]
        assert {"members", "nonmembers", "gap", "gap_ci95", "no_kd", "excess"} <= set(shown)
    assert report["exact_match"]["32"]["members"] == 0.5
    assert report["exact_match"]["50"]["n_members"] == 0


def test_the_gap_keeps_its_sign():
    report = memorization_report(Memorization(table(1 - STUDENT)))
    assert report["token_accuracy"]["gap"] == -0.375
    assert "no_kd" not in report["token_accuracy"] and "inheritance" not in report and "inherited" not in report


def test_tasks_are_reported_apart(report):
    # Even rows are summarization: members 1, 1, …; odd rows .5, .5, ….
    assert report["tasks"]["summarization"]["token_accuracy"]["members"] == 1
    assert report["tasks"]["open_qa"]["token_accuracy"]["members"] == 0.5
    assert report["tasks"]["open_qa"]["token_accuracy"]["n_members"] == N // 2


def test_the_inheritance_curve_counts_what_the_teacher_knows_better_than_each_threshold(report):
    curve = report["inheritance"]
    assert [point["threshold"] for point in curve] == list(THRESHOLDS)
    first, second, last = curve[0], curve[1], curve[-1]
    assert (first["n"], first["student_accuracy"], first["teacher_accuracy"]) == (20, 0.75, pytest.approx(0.8875))
    assert (second["n"], second["student_accuracy"]) == (15, pytest.approx(2.5 / 3))
    assert (last["n"], last["no_kd_accuracy"]) == (15, pytest.approx(2 / 3))
    accuracies = {"n": 10, "student_accuracy": 0.5, "teacher_accuracy": 0.75, "no_kd_accuracy": 0.5}
    assert {key: first["nonmembers"][key] for key in accuracies} == accuracies
    assert last["nonmembers"]["n"] == 0 and last["nonmembers"]["student_accuracy"] is None


def test_every_point_of_the_inheritance_curve_has_intervals_and_the_excess_is_paired(report):
    """By scipy's t, records being groups of their own; and a table written twice under one group id says no more."""
    first = report["inheritance"][0]
    for name, values in {"student": STUDENT[:N], "no_kd": NO_KD[:N]}.items():
        expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
        found = first[f"{name}_accuracy_ci95"]
        assert found == pytest.approx([max(0, expected.low), min(1, expected.high)])
    difference = STUDENT[:N] - NO_KD[:N]
    expected = scipy.stats.ttest_1samp(difference, 0).confidence_interval(0.95)
    assert first["excess"]["difference"] == pytest.approx(difference.mean())
    assert first["excess"]["ci95"] == pytest.approx([expected.low, expected.high])
    pairs = {"group_id": [f"g{i // 2:02d}" for i in range(2 * N)]}
    tables = [Memorization(table(np.repeat(a[::2], 2), **pairs)) for a in (STUDENT, TEACHER, NO_KD)]
    grouped = memorization_report(tables[0], teacher=tables[1], no_kd=tables[2])["inheritance"][0]
    low, high = grouped["student_accuracy_ci95"]
    alone = memorization_report(*[Memorization(table(np.repeat(STUDENT[::2], 2)))], teacher=tables[1])["inheritance"][0]
    assert high - low > 1.3 * np.diff(alone["student_accuracy_ci95"])[0] and "excess" not in alone


def test_inherited_is_what_teacher_and_student_give_back_and_the_other_student_does_not(report):
    # Of four members in a row: the first. The third is known without the teacher, the second to the teacher alone.
    assert report["inherited"]["records"] == {"members": 5, "nonmembers": 0}
    assert report["inherited"]["share"]["members"] == 0.25
    assert report["inherited"]["reproduced_by_teacher"] == {"members": 15, "nonmembers": 0}


def test_discoverable_extraction_by_hand(report):
    shares = report["extraction"]["discoverable"]
    # Half of the members have probability 1/2: found in one sample with p = .5, in ten with p = .9, and no others.
    assert shares["1"]["0.1"]["members"] == shares["1"]["0.5"]["members"] == 0.5
    assert shares["1"]["0.9"]["members"] == 0 and shares["10"]["0.9"]["members"] == 0.5
    assert shares["10000"]["0.1"]["nonmembers"] == 0
    assert shares["10"]["0.9"]["excess"]["members"] == 0.25


def test_records_too_short_to_tell_are_in_no_share():
    short = table(STUDENT).assign(reproduced=np.where(np.arange(2 * N) % 2 == 0, np.nan, (STUDENT == 1).astype(float)))
    report = memorization_report(Memorization(short))
    assert report["reproduced"]["n_members"] == N // 2
    assert report["extraction"]["discoverable"]["1"]["0.5"]["n_members"] == N // 2


def facts(extracted: list[bool]) -> pd.DataFrame:
    """Three facts a record: a phone, a date, and a date that the prompt states."""
    rows = [
        {"record_id": f"{i:02d}", "role": role, "task": "open_qa", "fact": fact, "kind": kind, "in_prompt": copied}
        for i, role in ((0, "member"), (1, "member"), (20, "nonmember"), (21, "nonmember"), (30, "public"))
        for fact, (kind, copied) in enumerate((("phone", False), ("date", False), ("amount", True)))
    ]
    return pd.DataFrame(rows).assign(extracted=extracted, log_p=np.where(extracted, 0.0, -np.inf))


def test_facts_are_counted_by_kind_and_apart_from_those_that_can_be_copied():
    own = facts([True, True, True, True, False, True, False, False, True, False, False, True, True, True, True])
    other = facts([False] * 15)
    report = memorization_report(
        Memorization(table(STUDENT), own), no_kd=Memorization(table(NO_KD), other.sample(frac=1, random_state=0))
    )
    found = report["extraction"]["facts"]
    assert (found["all"]["members"], found["all"]["n_members"], found["all"]["nonmembers"]) == (0.75, 4, 0)
    assert found["kinds"]["phone"]["members"] == 1 and found["kinds"]["date"]["members"] == 0.5
    assert found["copied"]["members"] == found["copied"]["nonmembers"] == 1 and found["copied"]["n_members"] == 2
    assert found["kinds"]["phone"]["no_kd"]["members"] == 0 and found["kinds"]["amount"]["n_members"] == 0
    assert found["probability"]["date"]["members"] == 0.5


def test_canaries_are_ranked_against_their_references_and_stand_beside_no_kd():
    ids, repetitions = [f"{i:02d}" for i in range(11)], [16, 16, 1, 1] + [0] * 7
    own = pd.DataFrame(
        {"record_id": ids, "repetitions": repetitions, "log_perplexity": [1.0, 2, 25, 65, *range(10, 80, 10)]}
    )
    other = own.assign(log_perplexity=[25.0, 35, 45, 55, *range(10, 80, 10)])
    report = memorization_report(
        Memorization(table(STUDENT), canaries=own), no_kd=Memorization(table(NO_KD), canaries=other)
    )
    found = report["extraction"]["canaries"]
    assert (found["references"], found["maximum"]) == (7, 3)
    assert found["repetitions"]["16"]["exposure"] == 3 and found["repetitions"]["16"]["n"] == 2
    assert found["repetitions"]["1"]["exposures"].tolist() == pytest.approx([3 - np.log2(7), 3 - np.log2(3)])
    assert found["most_against_least"]["difference"] > 0
    assert found["no_kd"]["repetitions"]["16"]["exposure"] < 2


def test_canary_exposure_has_an_interval_and_is_paired_with_the_no_kd_student():
    """3.71 raw may be 2.10 paired: some secrets are likelier than others to a model that has never seen them."""
    generator = np.random.default_rng(0)
    ids = [f"{i:03d}" for i in range(60)]
    bits = generator.normal(50, 5, 60)
    canaries = pd.DataFrame({"record_id": ids, "repetitions": [16] * 20 + [0] * 40, "log_perplexity": bits})
    own = canaries.assign(log_perplexity=bits - 8.0 * (canaries["repetitions"] > 0))
    tables = Memorization(table(STUDENT), canaries=own), Memorization(table(NO_KD), canaries=canaries)
    found = memorization_report(tables[0], no_kd=tables[1])["extraction"]["canaries"]["repetitions"]["16"]
    low, high = found["exposure_ci95"]
    assert low < found["exposure"] < high
    excess = found["excess"]
    assert excess["ci95"][0] > 0 and excess["exposure"] < found["exposure"]
    same = memorization_report(tables[1], no_kd=tables[1])["extraction"]["canaries"]["repetitions"]["16"]
    assert same["exposure"] > 0 and same["excess"] == {"exposure": 0.0, "ci95": [0.0, 0.0]}
    renamed = canaries.assign(record_id=[f"x{i}" for i in ids])
    with pytest.raises(KdleakError, match="canaries are not this model's"):
        memorization_report(tables[0], no_kd=Memorization(table(NO_KD), canaries=renamed))


def test_facts_of_one_group_count_as_one_draw():
    """Coverage was .53: the records of a group repeat each other's facts."""
    records = table(STUDENT)
    member = records["role"] == "member"
    facts = records[["record_id", "role", "task"]].assign(fact=0, kind="phone", in_prompt=False, log_p=-1.0)
    facts["extracted"] = member & (np.arange(len(records)) % 2 == 0)
    grouped = records.assign(group_id=[f"g{i % 4}" for i in range(len(records))])
    widths = []
    for rows in (records, grouped):
        low, high = memorization_report(Memorization(rows, facts=facts))["extraction"]["facts"]["all"]["gap_ci95"]
        widths.append(high - low)
    assert widths[1] > 1.3 * widths[0]


def test_the_report_is_deterministic_and_row_order_does_not_matter(report):
    shuffled = memorization_report(
        Memorization(table(STUDENT).sample(frac=1, random_state=1)),
        teacher=Memorization(table(TEACHER).sample(frac=1, random_state=2)),
        no_kd=Memorization(table(NO_KD).sample(frac=1, random_state=3)),
    )
    assert json_text(shuffled, 6) == json_text(report, 6)
    assert json.loads(json_text(report, 6))["exact_match"]["50"]["members"] is None


def test_tables_of_other_records_are_refused():
    other = table(NO_KD).assign(record_id=[f"x{i}" for i in range(2 * N)])
    with pytest.raises(KdleakError, match="no-KD student's table is of other records"):
        memorization_report(Memorization(table(STUDENT)), no_kd=Memorization(other))
    with pytest.raises(KdleakError, match="both roles"):
        memorization_report(Memorization(table(STUDENT).head(N)))
