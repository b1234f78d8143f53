"""Claims on membership.json: complete, deterministic, and silent about no record."""

import json

import numpy as np
import pandas as pd
import pytest

from kdleak.auditing.membership import attack_summary, membership_report
from kdleak.core.errors import KdleakError
from kdleak.core.files import json_text


@pytest.fixture
def scores():
    generator = np.random.default_rng(0)
    n = 240
    role = np.where(np.arange(n) % 2, "member", "nonmember")
    frame = pd.DataFrame({"record_id": [f"{i * 7919 % 1000:03d}" for i in range(n)], "role": role})
    frame["task"] = np.where(np.arange(n) % 3, "qa", "brainstorming")
    frame["loss"] = generator.normal(size=n) + (role == "member")
    frame["zlib"] = generator.normal(size=n)
    return frame


def test_the_report_has_the_agreed_layout(scores):
    report = membership_report(scores, controls={"blind": {"auc": 0.5}})
    assert set(report["attacks"]) == {"loss", "zlib"} and report["best_attack"] == "loss"
    for name, attack in report["attacks"].items():
        assert set(attack["tpr_at_fpr"]) == set(attack["tpr_ci95"]) == {"0.25", "0.05", "0.01", "0.001", "0"}
        assert attack["auc_ci95"][0] < attack["auc"] < attack["auc_ci95"][1] and attack["epsilon_lower"] >= 0
        assert attack["advantage"] == pytest.approx(2 * attack["balanced_accuracy"] - 1)
        assert set(report["tasks"]) == {"qa", "brainstorming"} and name in report["tasks"]["qa"]
    assert (report["n_members"], report["n_nonmembers"]) == (120, 120)
    assert report["controls"] == {"blind": {"auc": 0.5}}


def test_figures_are_those_of_the_scores(scores):
    members, nonmembers = (scores.loc[scores["role"] == r, "loss"].to_numpy() for r in ("member", "nonmember"))
    expected = attack_summary(members, nonmembers)
    found = membership_report(scores)["attacks"]["loss"]
    assert found["auc"] == pytest.approx((members[:, None] > nonmembers).mean()) == expected["auc"]
    assert found["tpr_at_fpr"]["0"] == (members > nonmembers.max()).mean()


def test_row_order_changes_nothing_and_the_text_is_byte_identical(scores):
    shuffled = scores.sample(frac=1, random_state=1)
    assert json_text(membership_report(scores), 6) == json_text(membership_report(shuffled), 6)


def test_undefined_scores_are_counted_not_dropped_in_silence(scores):
    scores.loc[scores["role"].eq("member").to_numpy().nonzero()[0][:3], "zlib"] = np.nan
    report = membership_report(scores)
    assert report["undefined"] == {"loss": {"members": 0, "nonmembers": 0}, "zlib": {"members": 3, "nonmembers": 0}}
    assert report["attacks"]["zlib"]["n_members"] == 117 and report["attacks"]["loss"]["n_members"] == 120


def test_an_fpr_finer_than_the_data_is_said_in_words(scores):
    (note,) = membership_report(scores)["notes"]
    assert "0.1 %" in note and "1/120" in note and "1 %" not in note.replace("0.1 %", "").split(" is finer")[0]


def test_a_task_with_one_side_only_is_null_not_an_error(scores):
    scores.loc[scores["role"] == "member", "task"] = "qa"
    entry = json.loads(json_text(membership_report(scores), 6))["tasks"]["brainstorming"]["loss"]
    assert entry["auc"] is None and entry["tpr_at_fpr"]["0.25"] is None and entry["n_members"] == 0


def test_other_roles_are_ignored(scores):
    extra = scores.assign(role="auxiliary", record_id="x" + scores["record_id"], loss=99.0)
    assert membership_report(pd.concat([scores, extra])) == membership_report(scores)


def test_p_values_are_corrected_for_the_number_of_attacks(scores):
    attacks = membership_report(scores)["attacks"]
    assert attacks["loss"]["p_holm"] == pytest.approx(2 * attacks["loss"]["p_value"])
    assert attacks["loss"]["p_holm"] < 1e-6 < 0.05 < attacks["zlib"]["p_holm"]


@pytest.mark.parametrize("role", ["member", "nonmember"])
def test_a_missing_side_is_named(scores, role):
    with pytest.raises(KdleakError, match="both roles 'member' and 'nonmember'"):
        membership_report(scores[scores["role"] == role])


def test_a_table_without_attacks_is_named(scores):
    with pytest.raises(KdleakError, match="no attack column"):
        membership_report(scores[["record_id", "role", "task"]])


def test_rates_and_epsilon_take_groups_for_one_draw(scores):
    """Each record written four times, in one group: the rates stay, and what they say is what one writing said."""
    fours = pd.concat([scores.assign(record_id=scores["record_id"] + f"/{i}") for i in range(4)], ignore_index=True)
    groups = {record: record.split("/")[0] for record in fours["record_id"]}
    once, grouped, naive = (membership_report(t, groups=g) for t, g in ((scores, None), (fours, groups), (fours, None)))
    a, b, c = (report["attacks"]["loss"] for report in (once, grouped, naive))
    assert a["tpr_at_fpr"] == b["tpr_at_fpr"] == c["tpr_at_fpr"]
    for rate in ("0.25", "0.05"):
        width = [np.ptp(each["tpr_ci95"][rate]) for each in (a, b, c)]
        assert width[1] == pytest.approx(width[0], rel=0.05) and width[2] < 0.7 * width[0]
    assert b["fpr_ci95"]["0.25"] == pytest.approx(a["fpr_ci95"]["0.25"])
    assert b["epsilon_lower"] == pytest.approx(a["epsilon_lower"], abs=0.05) and c["epsilon_lower"] > a["epsilon_lower"]
    assert once["notes"][0].split("as high as")[1] == grouped["notes"][0].split("as high as")[1]
