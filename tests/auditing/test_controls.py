"""Claims on controls and comparisons: silent on a fair split, loud on an unfair one."""

import numpy as np
import pandas as pd
import pytest

from kdleak.auditing import controls, permutation
from kdleak.auditing.comparisons import between_techniques, exposed_overlap, inherited, paired_differences
from kdleak.auditing.controls import blind_control, overlap_control, placebo_control
from kdleak.auditing.permutation import permutation_control
from kdleak.core.errors import KdleakError
from kdleak.inference.cache import ArrayCache
from kdleak.stats import auc, auc_difference, inheritance

WORDS = np.array(["river", "stone", "cloud", "ember", "field", "glass", "harbour", "iron", "juniper", "kite"])


def corpus(seed, n=120, give_away=False):
    generator = np.random.default_rng(seed)
    role = np.where(np.arange(n) % 2, "member", "nonmember")
    frame = pd.DataFrame({"record_id": [f"{i:04d}" for i in range(n)], "role": role, "task": "qa", "context": ""})
    frame["group_id"] = frame["record_id"]
    frame["instruction"] = [" ".join(generator.choice(WORDS, 4)) for _ in range(n)]
    frame["response"] = [" ".join(generator.choice(WORDS, 8)) for _ in range(n)]
    if give_away:
        frame.loc[generator.random(n) < 0.5 * (role == "member"), "response"] += " since 2024"
    return frame


def scores(seed, shift=1.0, n=200):
    generator = np.random.default_rng(seed)
    role = np.where(np.arange(n) % 2, "member", "nonmember")
    frame = pd.DataFrame({"record_id": [f"{i:04d}" for i in range(n)], "role": role, "task": "qa"})
    return frame.assign(loss=generator.normal(size=n) + shift * (role == "member"), zlib=generator.normal(size=n))


def test_the_blind_attack_finds_a_split_that_gives_membership_away():
    found = blind_control(corpus(0, give_away=True)).report
    assert found["state"] == "failed" and found["auc"] > 0.65 and "gives membership away" in found["verdict"]


def test_the_blind_attack_stays_at_chance_on_fair_splits():
    found = [blind_control(corpus(seed)).report for seed in range(10)]
    assert abs(np.mean([f["scorers"]["words"]["auc"] for f in found]) - 0.5) < 0.03
    assert sum(f["state"] == "passed" for f in found) >= 9


def test_the_blind_attack_does_not_learn_a_group_from_its_other_records():
    """Forty pairs of identical records, each pair with a random role: only a leak between folds could tell."""
    generator = np.random.default_rng(1)
    frame = corpus(1, n=80)
    pair = np.arange(80) // 2
    frame["role"] = np.where(generator.permutation(np.arange(40) % 2)[pair], "member", "nonmember")
    frame["group_id"] = [f"g{p}" for p in pair]
    frame["instruction"] = [f"word{p} " * 3 for p in pair]
    assert blind_control(frame).report["state"] == "passed"


def test_the_blind_attack_does_not_depend_on_row_order():
    frame = corpus(3)
    shuffled = frame.sample(frac=1, random_state=0)
    first, second = blind_control(frame), blind_control(shuffled)
    assert first.report == second.report
    assert (first.scores[shuffled.index] == second.scores).all()


def test_the_permutation_null_is_centred_and_the_best_attack_pays_for_the_choice():
    found = permutation_control(scores(0))
    for null in found["attacks"].values():
        assert abs(null["mean"] - 0.5) < 0.01 and null["range95"][0] < 0.5 < null["range95"][1]
    assert found["best"]["p_value"] < 0.01 and 0.5 < found["best"]["null_q95"] < 0.65
    chance = [permutation_control(scores(s, shift=0.0), permutations=200, seed=s)["best"]["p_value"] for s in range(40)]
    assert sum(p < 0.05 for p in chance) <= 6


def test_permutation_aucs_are_those_of_the_scores():
    table = scores(5)
    is_member = (table["role"] == "member").to_numpy()
    expected = auc(table["loss"][is_member].to_numpy(), table["loss"][~is_member].to_numpy()).value
    assert permutation_control(table)["best"]["auc"] == pytest.approx(expected)


def test_overlapping_nonmembers_are_judged_apart():
    table = scores(0)
    outside = table.loc[table["role"] == "nonmember", "record_id"]
    overlap = {i: (0.4 if k % 4 == 0 else 0.0 if k % 4 == 1 else np.nan) for k, i in enumerate(outside)}
    found = overlap_control(table, overlap)
    assert (found["some"]["n_nonmembers"], found["none"]["n_nonmembers"]) == (25, 75)
    rows = table["record_id"].map(overlap).gt(0).to_numpy()
    inside = (table["role"] == "member").to_numpy()
    expected = auc(table["loss"][inside].to_numpy(), table["loss"][rows].to_numpy()).value
    assert found["some"]["attacks"]["loss"]["auc"] == expected


def test_two_models_are_compared_record_by_record():
    student, teacher = scores(0), scores(1, shift=2.0)
    is_member = (student["role"] == "member").to_numpy()
    pair = [(t["loss"][is_member].to_numpy(), t["loss"][~is_member].to_numpy()) for t in (student, teacher)]
    shuffled = teacher.sample(frac=1, random_state=0)
    found = paired_differences(student, shuffled)["loss"]
    expected = auc_difference(*pair)
    assert (found["difference"], found["ci95"]) == (expected.value, [expected.low, expected.high])
    assert found["p_holm"] >= found["p_value"]
    ratio = inheritance(*pair)
    assert inherited(student, shuffled)["loss"] == {"share": ratio.value, "ci95": [ratio.low, ratio.high]}


def test_techniques_are_compared_pair_by_pair_and_pay_for_the_number_of_pairs():
    tables = {"kd": scores(0, shift=2.0), "rkl": scores(1, shift=0.5), "jsd": scores(2, shift=0.5)}
    found = {(row["first"], row["second"]): row for row in between_techniques(tables, "loss")}
    assert set(found) == {("kd", "rkl"), ("kd", "jsd"), ("rkl", "jsd")}
    assert found["kd", "rkl"]["difference"] == paired_differences(tables["kd"], tables["rkl"])["loss"]["difference"]
    assert found["kd", "rkl"]["p_holm"] < 0.01 and found["rkl", "jsd"]["p_holm"] > 0.05
    strongest = min(found.values(), key=lambda row: row["p_value"])
    assert strongest["p_holm"] == pytest.approx(3 * strongest["p_value"])
    with pytest.raises(KdleakError, match="did you mean 'loss'"):
        between_techniques(tables, "los")


def test_undefined_scores_leave_both_sides_of_a_comparison():
    student, teacher = scores(0), scores(1)
    student.loc[3, "loss"] = np.nan
    kept = [t.drop(index=3) for t in (student, teacher)]
    assert paired_differences(student, teacher)["loss"]["difference"] == paired_differences(*kept)["loss"]["difference"]


def test_models_attacked_on_different_records_are_not_compared():
    with pytest.raises(KdleakError, match="different records"):
        paired_differences(scores(0), scores(1).iloc[2:])


def test_the_same_ranking_exposes_the_same_records_and_an_unrelated_one_as_many_as_chance():
    table, other = scores(0, n=2000), scores(7, n=2000)
    same = exposed_overlap(table, table)["loss"]
    assert same["spearman"] == pytest.approx(1) and all(t["overlap"] == 1 for t in same["top"].values())
    chance = exposed_overlap(table, other)["zlib"]["top"]["0.1"]
    assert chance["k"] == 100 and chance["overlap"] == pytest.approx(chance["by_chance"], abs=0.08)
    assert chance["p_value"] > 0.01 and same["top"]["0.1"]["p_value"] < 1e-10


def test_the_blind_attack_runs_once_for_all_models(tmp_path, monkeypatch):
    cache, words = ArrayCache(tmp_path), ("red", "blue")
    rows = [{"record_id": str(i), "group_id": str(i), "role": ("member", "nonmember")[i % 2]} for i in range(40)]
    table = pd.DataFrame(
        [{**r, "instruction": words[i % 2], "context": "", "response": ""} for i, r in enumerate(rows)]
    )
    first = blind_control(table, cache=cache).report
    assert first == blind_control(table).report
    monkeypatch.setattr("kdleak.auditing.controls.blind_scores", lambda *_: pytest.fail("made anew"))
    assert blind_control(table, cache=cache).report == first
    with pytest.raises(pytest.fail.Exception):
        blind_control(table.assign(response="other words"), cache=cache)


def grouped(table, size=10):
    """Groups of `size` records of one side, in order."""
    place = table.groupby("role").cumcount() // size
    return dict(zip(table["record_id"], table["role"] + place.astype(str), strict=True))


def test_techniques_that_share_groups_are_compared_group_by_group():
    """Twenty records of each group have one score: what tells two techniques apart is groups, not records."""
    first, second = scores(0, shift=0.0), scores(1, shift=0.0)
    groups = grouped(first)
    for table, seed in ((first, 2), (second, 3)):
        drawn = dict(zip(sorted(set(groups.values())), np.random.default_rng(seed).normal(size=20), strict=True))
        table["loss"] = table["record_id"].map(groups).map(drawn)
    alone, by_group = (between_techniques({"a": first, "b": second}, "loss", g)[0] for g in (None, groups))
    width = [np.ptp(found["ci95"]) for found in (alone, by_group)]
    assert alone["difference"] == by_group["difference"] and width[1] > 2.5 * width[0]


def test_the_members_that_stand_out_are_compared_with_those_of_the_no_kd_student():
    """Student and no-KD student both expose easy records, as the teacher does: the excess is what is the student's."""
    generator, n = np.random.default_rng(4), 1000
    keys = scores(0, n=n)[["record_id", "role", "task"]]
    easy, known = generator.normal(size=(2, n))
    teacher = keys.assign(loss=easy + known)
    no_kd = keys.assign(loss=easy + 0.3 * generator.normal(size=n))
    student = keys.assign(loss=easy + 0.8 * known + 0.3 * generator.normal(size=n))
    found = exposed_overlap(student, teacher, no_kd)["loss"]
    top, other, excess = found["top"]["0.1"], found["no_kd"]["top"]["0.1"], found["excess"]["0.1"]
    assert other["overlap"] > 0.25 > other["by_chance"] and top["overlap"] > other["overlap"]
    assert excess["difference"] == pytest.approx(top["overlap"] - other["overlap"]) and excess["ci95"][0] > 0
    for figure in (top, other):
        assert figure["overlap_ci95"][0] < figure["overlap"] < figure["overlap_ci95"][1]
    assert found["spearman_ci95"][0] < found["spearman"] < found["spearman_ci95"][1]
    same = exposed_overlap(no_kd, teacher, no_kd)["loss"]["excess"]["0.1"]
    assert same == {"difference": 0.0, "ci95": [0.0, 0.0]}
    wider = exposed_overlap(student, teacher, no_kd, grouped(keys, 25))["loss"]["top"]["0.1"]
    assert wider["overlap"] == top["overlap"] and wider["p_value"] > top["p_value"]


def test_the_permutation_control_has_three_states():
    passed = permutation_control(scores(0), permutations=400)
    assert passed["state"] == "passed" and 0.02 < passed["attacks"]["loss"]["excluded"] < 0.09
    table = scores(1, n=120)
    groups = grouped(table, 20)  # three groups a side, each of one score
    drawn = dict(zip(sorted(set(groups.values())), np.random.default_rng(0).normal(size=6), strict=True))
    table["loss"] = table["record_id"].map(groups).map(drawn) + 0.01 * table["loss"]
    failed = permutation_control(table, permutations=400, groups=groups)
    assert failed["state"] == "failed" and failed["attacks"]["loss"]["excluded"] > 0.1
    assert "too narrow for these records" in failed["verdict"] and "'loss'" in failed["verdict"]
    nothing = permutation_control(table.assign(loss=np.nan, zlib=np.nan))
    assert nothing["state"] == "could not run" and "could not be shuffled" in nothing["verdict"]
    one = permutation_control(table, permutations=20, groups=dict(zip(table["record_id"], table["role"], strict=True)))
    assert one["state"] == "could not run" and "one group of records" in one["verdict"]


def test_a_placebo_has_three_states():
    generator, member = np.random.default_rng(0), np.arange(200) % 2 == 0
    noise = generator.normal(size=200)
    states = [placebo_control(s, member)["state"] for s in (noise, noise + 3 * member, np.full(200, np.nan))]
    assert states == ["passed", "failed", "could not run"]


def test_labels_are_shuffled_in_parts_with_the_figures_of_all_at_once(monkeypatch):
    table = scores(0)
    whole = permutation_control(table, permutations=90)
    monkeypatch.setattr(permutation, "_CELLS", 40 * len(table))
    monkeypatch.setattr(permutation, "_INTERVAL_CELLS", 15 * len(table))
    parts = permutation_control(table, permutations=90)
    assert parts["best"] == whole["best"]
    for name, null in whole["attacks"].items():
        assert parts["attacks"][name]["range95"] == null["range95"]
        assert parts["attacks"][name]["excluded"] == pytest.approx(null["excluded"])


def test_the_blind_battery_looks_at_a_sample_of_very_many_records(monkeypatch):
    records = pd.DataFrame({"record_id": [f"{i * 7919 % 1000:04d}" for i in range(200)], "task": "qa"})
    records["role"] = ["member", "nonmember"] * 100
    records = records.assign(group_id=records["record_id"], instruction="a", context="", response=records["record_id"])
    monkeypatch.setattr(controls, "LARGEST", 80)
    looked = np.isfinite(blind_control(records).scores)
    assert looked.sum() == 80 and set(records["record_id"][looked]) == set(sorted(records["record_id"])[:80])
