"""Claims on the verdict on a whole list: what it says, what it refuses to say; no words call a student clean."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kdleak.auditing.list_verdict import ALPHA, CLEAR, FEWEST, LEARNED, NO_EVIDENCE, NO_NULL, UNTOLD, list_verdict
from kdleak.auditing.list_words import in_words, list_section
from kdleak.stats import auc

ATTACKS = ("loss", "zlib", "mink", "ref_pretrained", "ez")


def table(seed: int, n: int = 60, shift: float = 0.0, hardness: np.ndarray | None = None) -> pd.DataFrame:
    """Scores of n members, then n non-members; hardness (2 n,): what every model's scores share."""
    generator = np.random.default_rng(seed)
    member = np.arange(2 * n) < n
    shared = generator.normal(size=2 * n) if hardness is None else hardness
    columns = {name: shared + generator.normal(size=2 * n) + shift * member for name in ATTACKS}
    ids = [f"r{i * 7919 % 9973:04d}" for i in range(2 * n)]
    return pd.DataFrame({"record_id": ids, "role": np.where(member, "member", "nonmember"), "task": "qa", **columns})


def judged(student: pd.DataFrame, compared: dict[str, pd.DataFrame] | None = None, **given: Any) -> dict[str, Any]:
    groups = given.pop("groups", dict(zip(student["record_id"], student["record_id"], strict=True)))
    record = SimpleNamespace(kind=given.pop("kind", "no_leak_found"))
    report, _ = list_verdict(student, compared or {}, record, given.pop("blind", "passed"), groups, **given)
    return report | in_words(report)


def test_a_student_that_learned_from_the_list_is_said_to_have():
    found = judged(table(0, shift=1.0), {"no_kd": table(1)})
    assert found["kind"] == LEARNED and found["p_value"] <= ALPHA
    assert found["headline"].startswith("The student learned from this list")
    assert 0 < found["own_share"] < 1 and "would have been noticed too" in found["sentences"][0]
    assert found["placebo"]["baseline"] > ALPHA and len(found["sentences"]) == 1


def test_without_a_model_that_never_met_the_teacher_no_words_say_where_a_difference_comes_from():
    """Lists that differ a little, by less than the blind battery sees, look the same to this test."""
    others = {"no_kd": table(1)[["record_id", "role", "task"]]}  # no attack ran on it: as good as none
    for found in (judged(table(0, shift=1.0)), judged(table(0, shift=1.0), others)):
        assert found["kind"] == UNTOLD and found["p_value"] <= ALPHA and "learned" not in found["headline"]
        assert found["headline"].startswith("Together, the records of this list stand out")
        assert found["sentences"][-1].startswith("Either the student learned from it, or the lists differ")
        assert "(--baseline, --pretrained), and this audit cannot tell which" in found["sentences"][-1]
        assert (
            found["why"] == NO_NULL and 0 < found["own_share"] < 1
        )  # what would have been noticed stands all the same
    assert judged(table(2))["kind"] == NO_EVIDENCE  # what does not stand out needs no other model


def test_what_is_not_found_is_no_proof_and_the_words_say_what_would_have_been():
    found = judged(table(2), {"no_kd": table(3), "teacher": table(4, shift=4.0)})
    assert found["kind"] == NO_EVIDENCE and "no proof that it did not" in found["headline"]
    assert "clean" not in " ".join([found["headline"], *found["sentences"]])
    assert f"AUC of {found['noticeable_auc']:.2f}".replace("0.", ".") in found["sentences"][1]
    assert list(found["shares"]) == [f"{each:g}" for each in CLEAR] and found["own_share"] is None
    shares = [share for share in found["shares"].values() if share is not None]
    assert shares == sorted(shares, reverse=True)
    assert 0.5 < found["ruled_out"]["auc"] <= 0.8 and 0 < found["ruled_out"]["share"] < 0.6
    assert "It speaks against a list that was used whole" in found["sentences"][-1]
    assert "stood out as it does in the teacher" in found["sentences"][-1]


def test_what_is_said_to_be_noticeable_is_noticed():
    """Of 20 students that learned as much as is said to be noticed with 95 %, at least 16 are found."""
    stated = judged(table(5, 100))["noticeable_auc"]
    shift = 2.0 * 1.1 * _z(stated)  # a score's standard deviation is the square root of two
    assert sum(judged(table(100 + seed, 100, shift))["p_value"] <= ALPHA for seed in range(20)) >= 16


def _z(area: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf(area))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"blind": "failed"}, "The control for lists that differ has not passed (failed)."),
        ({"blind": "could not run"}, "The control for lists that differ has not passed (could not run)."),
        ({"kind": "swapped"}, "The lists look swapped."),
    ],
)
def test_lists_that_differ_or_are_swapped_say_nothing(given, why):
    found = judged(table(0, shift=1.0), **given)
    assert found["kind"] == UNTOLD and found["why"] == why and found["sentences"] == [why]
    assert found["headline"] == "Of the list as a whole nothing can be said."
    assert found["noticeable_auc"] is None and found["p_value"] <= ALPHA  # the figure stands, and decides nothing


def test_a_model_that_never_met_the_teacher_and_is_found_too_refutes_the_verdict():
    easier = table(6, shift=1.0)
    found = judged(table(0, shift=1.0), {"no_kd": easier})
    assert found["kind"] == UNTOLD and found["placebo"]["baseline"] <= ALPHA
    assert found["why"].startswith("The same test finds the baseline, which never met the teacher")
    none_shared = easier[["record_id", "role", "task"]]
    assert judged(table(0, shift=1.0), {"no_kd": none_shared})["placebo"] == {"baseline": None}


def test_few_groups_and_scores_of_the_baseline_itself_say_nothing():
    student = table(0, shift=1.0)
    few = {name: f"{i * (FEWEST - 1) // 60}" for i, name in enumerate(student["record_id"])}
    assert "fewer than 10 groups" in judged(student, groups=few)["why"]
    assert "a model that never met the teacher gives" in judged(student, {"no_kd": student})["why"]


def test_difficulty_that_the_baseline_knows_is_taken_from_the_scores():
    """The same effect, behind difficulties of records that student and baseline share."""
    hardness = 3.0 * np.random.default_rng(7).normal(size=120)
    student, baseline = table(8, shift=0.6, hardness=hardness), table(9, hardness=hardness)
    assert judged(student, {"no_kd": baseline})["p_value"] <= ALPHA < judged(student)["p_value"]


def test_row_order_changes_nothing_and_the_scores_come_back_in_it():
    student = table(0, shift=1.0)
    groups = dict(zip(student["record_id"], student["record_id"], strict=True))
    first, scores = list_verdict(student, {}, SimpleNamespace(kind="leak"), "passed", groups)
    order = np.random.default_rng(0).permutation(len(student))
    again, shuffled = list_verdict(student.iloc[order], {}, SimpleNamespace(kind="leak"), "passed", groups)
    assert again == first
    np.testing.assert_allclose(shuffled, scores[order])
    member = (student["role"] == "member").to_numpy()
    assert first["auc"] == pytest.approx(auc(scores[member], scores[~member]).value)


def test_attacks_of_the_auditor_and_published_variants_are_no_signals():
    student = table(0).assign(teacher_aware=5.0 * (np.arange(120) < 60), mink_published=0.0, recall=np.nan)
    found = judged(student)
    assert found["attacks"] == list(ATTACKS) and found["kind"] == NO_EVIDENCE


def test_the_page_has_a_line_for_each_figure():
    found = judged(table(2), {"no_kd": table(3)})
    shown = str(list_section(found).blocks[-1])
    assert "had each attack an AUC of .60" in shown and "the same test on the baseline" in shown
    little = found | {"noticeable_auc": None, "shares": {}, "ruled_out": {"auc": None, "share": None}}
    assert "so few records rule nothing out" in in_words(little)["sentences"][1]
