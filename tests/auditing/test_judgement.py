"""Claims on the judgement: a leak is an excess over every model that never met the teacher, and nothing else is."""

import numpy as np
import pandas as pd
import pytest

from kdleak.auditing.judgement import CANNOT_TELL, LEAK, LISTS_DIFFER, NONE, SUFFICIENT, SWAPPED, judge
from kdleak.auditing.verdict import verdict
from kdleak.core.errors import KdleakError
from kdleak.stats import auc, operating_point
from tests.support.simulated_audits import NULLS, null_settings, simulated_audit

N = 300
MEMBER = np.arange(2 * N) % 2 == 1
CUT = {"prompts": 0, "responses": 0}


def table(seed=0, **shifts):
    """A score table; each attack's members score higher by its shift, in standard deviations."""
    generator = np.random.default_rng(seed)
    ids = [f"{i:04d}" for i in range(2 * N)]
    keys = {"record_id": ids, "role": np.where(MEMBER, "member", "nonmember"), "task": "qa"}
    return pd.DataFrame(keys | {name: generator.normal(size=2 * N) + shift * MEMBER for name, shift in shifts.items()})


def judged(student, compared=None, state="passed", fpr=0.01, groups=None):
    blind = np.random.default_rng(99).random(2 * N)
    return judge(student, compared or {}, blind, state, fpr, groups)


def words(judgement, left_out=None, cut=None, state="passed", **blind):
    blind = {"auc": 0.5, "auc_ci95": [0.4, 0.6], "noticeable_auc": 0.6, "verdict": "It could not run.", **blind}
    blind = {"state": state, "scorer": "words", "failed": ["words"], **blind}
    options = {"beside": {}, "memorization": None, "left_out": left_out or {}, "cut": cut or CUT}
    attacks = {judgement.best.attack: {"auc": judgement.best.auc, "auc_ci95": [0.4, 0.6]}}
    controls = {"blind": blind, "permutation": {"state": "failed", "verdict": "The intervals are too narrow."}}
    return verdict(judgement, attacks, controls, **options)


def test_a_student_equal_to_its_baseline_does_not_leak():
    """.68 and .67, as the audit of an easier list of members gave them."""
    student, baseline = table(0, loss=0.66), table(1, loss=0.62)
    assert judged(student).kind == LEAK  # without the baseline nothing else can be said
    found = judged(student, {"no_kd": baseline})
    assert found.kind == NONE and found.best.auc > 0.65 and found.excess["loss"].null == "baseline"
    assert judged(table(0, loss=1.5), {"no_kd": baseline}).kind == LEAK


def test_a_student_equal_to_its_base_does_not_leak_either():
    student = table(0, loss=0.66)
    assert judged(student, {"no_kd": table(1, loss=0.0), "pretrained": student}).kind == NONE


@pytest.mark.parametrize(("state", "kind"), [("could not run", CANNOT_TELL), ("failed", LISTS_DIFFER)])
def test_nothing_leaks_unless_the_blind_control_has_passed(state, kind):
    found = judged(table(0, loss=2.0), {"no_kd": table(1, loss=0.0)}, state)
    assert found.kind == kind and "it leaks" not in words(found, state=state)["headline"]


@pytest.mark.parametrize(
    ("scorer", "headline", "who"),
    [
        ("words", "without any model", "A blind attack that sees the texts alone reaches"),
        ("pretrained", "by a model that saw neither", "The pretrained base, which saw neither list, reaches"),
        ("no_kd", "by a model that saw neither", "The baseline, which saw neither list, reaches"),
    ],
)
def test_a_blind_scorer_is_called_what_it_is(scorer, headline, who):
    said = words(judged(table(0, loss=2.0), state="failed"), state="failed", scorer=scorer, failed=[scorer])
    assert headline in said["headline"] and any(each.startswith(who) for each in said["sentences"])


def test_nothing_leaks_where_shuffled_labels_show_the_intervals_to_be_too_narrow():
    blind = np.random.default_rng(99).random(2 * N)
    found = judge(table(0, loss=2.0), {}, blind, "passed", 0.01, permutation_state="failed")
    said = words(found)
    assert found.kind == CANNOT_TELL and said["headline"].startswith("The intervals do not hold on these records: ")
    assert any(each.startswith("The intervals are too narrow.") for each in said["sentences"])


def test_one_artefact_of_length_neither_swaps_the_lists_nor_hides_a_leak():
    """zlib .31 beside ez .69."""
    student, baseline = table(0, zlib=-0.7, ez=0.7, loss=0.0), table(1, zlib=-0.7, loss=0.0)
    found = judged(student, {"no_kd": baseline})
    assert found.kind == LEAK and found.best.attack == "ez" and found.leaking == ("ez",)
    assert judged(table(0, zlib=-0.7, ez=0.0), {}).kind == NONE
    assert judged(table(0, zlib=-0.7, ez=-0.7), {}).kind == SWAPPED


def test_the_members_named_are_those_of_the_attack_that_is_best_at_that_rate():
    """The attack with the best AUC names fewer than another, which is sure of a third of the members."""
    student = table(0, loss=0.9, ez=0.0)
    sure = np.flatnonzero(MEMBER)[: N // 3]
    student.loc[sure, "ez"] += 10.0
    best = judged(student, {"no_kd": table(1, loss=0.0)}).best
    assert best.attack == "loss" and best.named_by == "ez" and best.tpr > 0.33
    alone = operating_point(student["ez"][MEMBER].to_numpy(), student["ez"][~MEMBER].to_numpy(), 0.01).tpr_ci
    assert best.tpr_ci[0] <= alone[0] and best.tpr_ci[1] >= alone[1]  # two attacks are paid for
    assert "attack 'ez'" in words(judged(student))["sentences"][0]


def test_of_1000_members_the_attack_best_at_the_rate_names_336_and_not_108():
    """By AUC `loss` is best and names 108; `ez` knows 336 by heart and nothing of the others."""
    n = 1000
    ids = [f"{i:04d}" for i in range(2 * n)]
    member = np.arange(2 * n) < n
    keys = pd.DataFrame({"record_id": ids, "role": np.where(member, "member", "nonmember"), "task": "qa"})
    nonmembers = np.arange(1.0, n + 1)  # 1 % of them lie above 990
    loss = np.concatenate([np.full(108, 2000.0), np.linspace(400.5, 989.5, n - 108), nonmembers])
    ez = np.concatenate([np.full(336, 2000.0), np.linspace(0.5, 989.5, n - 336), nonmembers])
    student = keys.assign(loss=loss, ez=ez)
    best = judge(student, {}, np.random.default_rng(0).random(2 * n), "passed", 0.01).best
    assert (best.attack, best.named_by, round(n * best.tpr)) == ("loss", "ez", 336)
    assert operating_point(loss[member], loss[~member], 0.01).tpr == 0.108


def test_a_leak_of_few_records_is_found_by_the_members_that_it_names():
    """5 % of the members are known by heart: an AUC of .525 shows nothing, the top of the ranking does."""
    generator = np.random.default_rng(0)
    ids = [f"{i:05d}" for i in range(6000)]
    member = np.arange(6000) % 2 == 1
    keys = pd.DataFrame({"record_id": ids, "role": np.where(member, "member", "nonmember"), "task": "qa"})
    student, baseline = (keys.assign(loss=generator.normal(size=6000)) for _ in range(2))
    student.loc[np.flatnonzero(member)[:150], "loss"] += 8.0
    found = judge(student, {"no_kd": baseline}, generator.random(6000), "passed", 0.01)
    assert found.kind == LEAK and found.best.tpr_ci[0] > 0.01


def test_attacks_of_an_auditor_are_no_attackers_best():
    found = judged(table(0, loss=0.0, teacher_aware=3.0))
    assert found.best.attack == found.best.named_by == "loss" and found.kind == NONE and found.best.attacks == 1


def test_without_a_model_that_never_met_the_teacher_the_verdict_says_what_it_cannot_know():
    assert "this audit cannot know" in " ".join(words(judged(table(0, loss=2.0)))["sentences"])
    known = judged(table(0, loss=2.0), {"pretrained": table(1, loss=0.0)})
    said = " ".join(words(known)["sentences"])
    assert known.nulls == ("pretrained", "blind") and "cannot know" not in said and "at least +" in said


def test_no_leak_found_states_its_power_after_the_strong_attacks_that_did_not_run():
    found = judged(table(0, loss=0.0), {"no_kd": table(1, loss=0.0)})
    said = words(found, {"ez": "needs --pretrained", "wbc": "needs --pretrained", "mope": "left out by --quick"})
    assert said["sentences"][0] == "Strong attacks did not run: 'ez', 'wbc' (needs --pretrained)."
    assert (
        f"An AUC above {found.noticeable_auc:.2f} by any of these attacks would have been noticed"
        in (said["sentences"][1])
    )
    assert said["power"] == {"noticeable_auc": found.noticeable_auc, "probability": 0.95, "sufficient": False}
    assert found.noticeable_auc > SUFFICIENT and "A smaller leak may well be there" in said["sentences"][1]


def test_a_leak_of_the_size_that_would_have_been_noticed_is():
    size = judged(table(0, loss=0.0), {"no_kd": table(1, loss=0.0)}).noticeable_auc
    found = 0
    for seed in range(40):
        student = table(1000 + seed, loss=1.0)
        scale = 1.0
        while auc(student["loss"][MEMBER].to_numpy(), student["loss"][~MEMBER].to_numpy()).value > size:
            scale -= 0.05
            student = table(1000 + seed, loss=scale)
        found += judged(student, {"no_kd": table(2000 + seed, loss=0.0)}).kind == LEAK
    assert found >= 38


def test_records_of_one_group_count_as_one_draw():
    student = table(0, loss=0.5)
    student["loss"] = np.repeat(student["loss"].to_numpy()[:40], 15)
    student["role"] = np.repeat(student["role"].to_numpy()[:40], 15)
    groups = {record: str(i // 15) for i, record in enumerate(student["record_id"])}
    blind = np.random.default_rng(1).random(2 * N)
    bare, grouped = (judge(student, {}, blind, "passed", 0.01, each) for each in (None, groups))
    assert grouped.best.auc_high - grouped.best.auc_low > 2.5 * (bare.best.auc_high - bare.best.auc_low)


def test_few_tight_groups_do_not_leak_by_a_rate_that_takes_each_record_for_a_draw():
    """Ten groups of a side that share nearly all of their score: a third of such nulls leaked by TPR alone."""
    kinds = []
    for seed in range(40):
        generator, student = np.random.default_rng(seed), table(seed)
        owner = np.arange(2 * N) // (2 * N // 20)
        student["loss"] = 3 * generator.normal(size=20)[owner] + generator.normal(size=2 * N)
        groups = dict(zip(student["record_id"], owner.astype(str), strict=True))
        kinds.append(judged(student, fpr=0.05, groups=groups).kind)
    assert kinds.count(LEAK) <= 5


def test_from_fewer_than_five_groups_a_side_nothing_can_be_told():
    student = table(0, loss=3.0)
    groups = {record: str(i // (2 * N // 4)) for i, record in enumerate(student["record_id"])}
    found = judged(student, groups=groups)
    assert found.kind == CANNOT_TELL and "Too few records are independent" in words(found)["headline"]
    assert any("Fewer than five groups" in sentence for sentence in words(found)["sentences"])


def test_an_audit_without_any_score_is_refused():
    student = table(0, loss=0.0)
    student["loss"] = np.nan
    with pytest.raises(KdleakError, match="no attack has a defined score on both lists: nothing can be judged"):
        judged(student)


def test_an_attack_that_no_null_model_ran_says_what_cannot_be_known():
    found = judged(table(0, loss=0.0, ez=0.8), {"pretrained": table(1, loss=0.0)})
    assert found.best.attack == "ez" and not found.knows_a_null_model
    assert any("this audit cannot know" in sentence for sentence in words(found)["sentences"])
    assert any("'ez', which costs passes of its own, ran on no model" in each for each in words(found)["sentences"])


def test_prompts_that_were_cut_are_said():
    said = words(judged(table(0, loss=0.0)), cut={"prompts": 7, "responses": 2})["sentences"]
    assert any(sentence.startswith("7 prompts and 2 responses were longer than the limits") for sentence in said)


def test_null_audits_do_not_leak():
    """One of each kind with its texts, others by their scores; the full suite: benchmarks/verdict_simulation.py."""
    kinds = [simulated_audit(seed, **null_settings(seed)[1]).kind for seed in range(len(NULLS))]
    kinds += [simulated_audit(s, **null_settings(s)[1], with_texts=False).kind for s in range(len(NULLS), 40)]
    assert kinds.count(LEAK) <= 3


def test_planted_leaks_are_found_the_larger_the_surer():
    shares = [
        np.mean([simulated_audit(seed, leak=size, with_texts=False).kind == LEAK for seed in range(10)])
        for size in (0.25, 1.0)
    ]
    assert shares[0] < 0.6 and shares[1] == 1.0
