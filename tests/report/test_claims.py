"""No sentence about a claim without figures that would make it false: attacks that disagree, techniques that did not
run, tasks and blocks that are not there."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from kdleak.core.files import write_csv, write_json
from kdleak.core.paths import Project
from kdleak.pipeline.provenance import Provenance
from kdleak.render.page import Page, Section
from kdleak.report.headline import best_attack
from kdleak.report.results_table import print_results
from kdleak.report.study.claims import findings_of
from kdleak.report.study.findings import (
    CONTRADICTED,
    DEPENDS,
    INCONCLUSIVE,
    NOT_RUN,
    REPRODUCED,
    TPR,
    Compared,
    Finding,
    View,
    by_pair,
    detectable,
    judged,
    together,
)
from kdleak.report.study.markdown import results_markdown
from kdleak.report.study.results import read_study
from kdleak.report.study.sections import Report
from kdleak.report.study.sections.attacks import heatmap_drawing
from kdleak.report.study.sections.claims import tally
from kdleak.report.study.sections.headline import what_leaked
from kdleak.report.study.sections.realised import what_techniques_did
from kdleak.report.study.tables import attacks_table, models_table
from kdleak.stats.contrasts import Contrast
from kdleak.tracking.metrics import headline_metrics, realised_metrics
from tests.support.study_results import STRENGTHS, StudyResults, params_of

SURE, REVERSE, OPEN = (Contrast("a over b", value, 0.01, 9) for value in (0.1, -0.1, 0.005))
BY = [View("loss"), View("ez"), View("loss", TPR)]


def verdicts(results: StudyResults, **changes: object) -> dict[str, Finding]:
    return {f.claim: f for f in findings_of(read_study(params_of(**changes), results.project))}


def change(results: StudyResults, names: list[str], edit: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    for name in names:
        path = results.project.scores(name)
        edit(pd.read_parquet(path)).to_parquet(path)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory) -> StudyResults:
    return StudyResults(tmp_path_factory.mktemp("study"), n=300)


@pytest.fixture
def results(untouched, tmp_path) -> StudyResults:
    """A copy, for a test to change."""
    shutil.copytree(untouched.project.root, tmp_path, dirs_exist_ok=True)
    made = copy.copy(untouched)
    made.project = Project(tmp_path)
    return made


@pytest.mark.parametrize(
    ("tests", "verdict"),
    [
        ([SURE, SURE, SURE], REPRODUCED),
        ([SURE, OPEN, OPEN], REPRODUCED),
        ([OPEN, OPEN, OPEN], INCONCLUSIVE),
        ([REVERSE, OPEN, OPEN], CONTRADICTED),
        ([SURE, REVERSE, OPEN], DEPENDS),
    ],
)
def test_attacks_that_agree_make_one_verdict_and_others_are_said_to_disagree(tests, verdict):
    compared = judged(tests, BY)
    assert by_pair(compared) == {"a over b": verdict} and together(compared) == verdict
    assert (detectable(compared) is None) == (verdict != INCONCLUSIVE)


def test_a_pair_reversed_under_every_attack_contradicts_whatever_else_depends():
    other = [Contrast("c over d", value, 0.01, 9) for value in (-0.1, -0.1)]
    compared = judged([SURE, REVERSE, *other], [View("loss"), View("ez")] * 2)
    assert together(compared) == CONTRADICTED
    assert together(compared[:2]) == DEPENDS


def test_the_smallest_difference_is_that_of_the_most_sensitive_attack():
    vague = Contrast("a over b", 0.001, 0.1, 9)
    compared = judged([OPEN, vague], [View("loss"), View("ez")])
    assert detectable(compared) == pytest.approx(OPEN.detectable(2))


def test_a_technique_that_one_attack_puts_first_and_another_last_depends_on_the_attack(results):
    """kd over rkl by loss, rkl over kd by ez: claim 3 has no answer of its own."""
    before = verdicts(results)["3"]
    assert before.verdict in (REPRODUCED, INCONCLUSIVE) and "by ez" in before.answer
    member = results.keys["role"].to_numpy() == "member"
    rng = np.random.default_rng(0)
    for name, loss, ez in (("kd", 2.0, 0.2), ("rkl", 0.2, 2.0)):
        noise = rng.normal(size=(2, len(member)))
        change(
            results,
            [name],
            lambda t, up=(loss, ez), z=noise: t.assign(loss=z[0] + up[0] * member, ez=z[1] + up[1] * member),
        )
    found = verdicts(results)["3"]
    assert found.verdict == DEPENDS and found.attacks == ("loss", "ez")
    assert "+.3" in found.answer and "-.3" in found.answer
    assert tally([found]) == "1 depends on the attack" and found.record()["verdict"] == "depends on the attack"


def test_every_attack_that_judges_counts_and_no_other_does(results):
    """zlib ran too and judges nothing; a judge of the auditor's making does not exist."""
    found = verdicts(results)
    assert found["2"].attacks == ("loss", "ez")
    assert {c.view.attack for c in found["1"].compared} == {"loss", "ez"}
    change(results, list(STRENGTHS), lambda t: t.assign(zlib=-t["zlib"]))
    assert verdicts(results) == found


def test_holm_is_over_all_tests_of_the_claim(results):
    found = verdicts(results)["2"]
    pairs = len(by_pair(found.compared))
    assert len(found.compared) == 2 * pairs and f"{2 * pairs} tests" in found.test
    weakest = min(found.compared, key=lambda c: c.contrast.p_value)
    assert weakest.p_holm == pytest.approx(min(1.0, len(found.compared) * weakest.contrast.p_value))


def test_no_verdict_names_a_technique_whose_mechanism_did_not_run(results):
    assert any("DistiLLM" in c.contrast.name for c in verdicts(results)["2"].compared)
    path = results.project.training("distillm")
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"mechanism": {"ran": False, "why": "no student-written token"}}))
    found = verdicts(results)
    for claim in ("1", "2"):
        assert "Not DistiLLM here: no student-written token." in found[claim].caveat
        assert not any("DistiLLM" in c.contrast.name for c in found[claim].compared)
    assert "DistiLLM" not in found["6"].answer and "of 5 techniques" in found["1"].answer
    path.write_text(json.dumps(content | {"mechanism": {"ran": True, "why": ""}}))
    assert any("DistiLLM" in c.contrast.name for c in verdicts(results)["2"].compared)


def test_a_claim_whose_own_technique_did_not_run_has_no_verdict(results):
    for name in ("minillm", "imitkd", "gkd"):
        path = results.project.training(name)
        mechanism = {"ran": False, "why": "one rollout in all"}
        path.write_text(json.dumps(json.loads(path.read_text()) | {"mechanism": mechanism}))
    found = verdicts(results)
    assert found["2"].verdict == NOT_RUN and "Not MiniLLM here: one rollout in all." in found["2"].answer
    assert found["4"].verdict == NOT_RUN and not found["4"].compared


def test_claim_five_is_of_the_excess_and_of_the_tasks_that_it_names(results):
    """Tasks that are easier for every model, the no-KD student too, leak no more; open QA is no task of the claim."""
    found = verdicts(results)["5"]
    assert found.verdict == INCONCLUSIVE and "open QA" not in found.answer.split(". ")[0]
    assert "creative writing and brainstorming above" in found.answer.lower()
    assert any("no general QA" in condition for condition in found.conditional_on)
    easy = results.keys["task"].isin(["creative_writing", "brainstorming"]).to_numpy()
    member = (results.keys["role"] == "member").to_numpy()
    lift = 1.5 * (easy & member)
    change(results, list(STRENGTHS), lambda t: t.assign(loss=t["loss"] + lift, ez=t["ez"] + lift))
    raw = verdicts(results)["5"]
    assert all(abs(each.contrast.value) < 0.25 for each in raw.compared) and raw.verdict != REPRODUCED
    only_students = [name for name in STRENGTHS if name not in ("teacher", "sft")]
    change(results, only_students, lambda t: t.assign(loss=t["loss"] + lift, ez=t["ez"] + lift))
    change(results, ["sft"], lambda t: t.assign(loss=t["loss"] - lift, ez=t["ez"] - lift))
    assert verdicts(results)["5"].verdict == REPRODUCED


def test_claim_seven_has_no_verdict_below_four_blocks_and_names_the_teachers(results):
    whole = verdicts(results)["7"]
    assert whole.verdict == REPRODUCED and "The teacher's 4 blocks: most in block 3" in whole.answer
    for name in STRENGTHS:
        if name != "teacher":
            path = results.project.block_scores(name)
            pd.read_parquet(path).drop(columns=["block_3"]).to_parquet(path)
    few = verdicts(results)["7"]
    assert few.verdict == NOT_RUN and "No verdict on fewer than four blocks: the students' audit has 3." in few.answer
    assert "The teacher's 4 blocks" in few.answer


def test_the_perturbations_own_error_can_leave_claim_seven_open(results):
    assert verdicts(results)["7"].figures["monte_carlo_error"] > 0
    for name in STRENGTHS:
        path = results.project.blocks(name)
        content = json.loads(path.read_text())
        for block in content["blocks"]:
            block["auc_monte_carlo_error"] = 0.2
        path.write_text(json.dumps(content))
    found = verdicts(results)["7"]
    assert found.verdict == INCONCLUSIVE and found.figures["monte_carlo_error"] == pytest.approx(0.2 * 2**0.5)


def test_claims_say_on_which_grid_they_stand(results):
    found = verdicts(results)
    assert "the controlled grid: equal start, epochs, learning rate and LM loss" in found["2"].conditional_on
    for name, changes in (("imitkd", {"starts_from": "sft", "options": {"lm_weight": 1.0}}), ("minillm", {"lr": 3e-4})):
        path = results.project.training(name)
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    grid = next(c for c in verdicts(results)["2"].conditional_on if c.startswith("the recipes"))
    assert "ImitKD starts from the no-KD student" in grid and "ImitKD adds an LM loss" in grid
    assert "learning rates differ" in grid and "epochs differ" not in grid


def test_every_finding_says_that_it_is_of_one_training(results):
    for finding in verdicts(results).values():
        record = finding.record()
        assert {"claim", "says", "verdict", "conditional_on", "runs", "attacks"} <= set(record)
        if finding.verdict == NOT_RUN:
            assert record["runs"] == 0 and not record["attacks"]
        else:
            said = " ".join(record["conditional_on"])
            assert record["runs"] == 1 and record["attacks"]
            assert "one training of the teacher and of each student, seed 0" in said and "500 members" in said
            assert all(attack in said for attack in record["attacks"])


def test_no_p_value_of_a_finding_is_smaller_than_a_millionth(results):
    far = Compared(Contrast("a", 1.0, 0.01, 9), 1e-30, REPRODUCED, View("loss"))
    record = Finding("1", "", REPRODUCED, "", "", [far]).record()["comparisons"][0]
    assert record["p_value"] == record["p_holm"] == "< 1e-6"
    for finding in verdicts(results).values():
        for each in finding.record()["comparisons"]:
            assert all(p == "< 1e-6" or p >= 1e-6 for p in (each["p_value"], each["p_holm"]))


def test_a_techniques_realised_shares_stand_in_the_report_and_what_did_not_run_is_named(results):
    def shown() -> str:
        study = read_study(params_of(), results.project)
        content = what_techniques_did(Report(study, [], None))
        return Page("x", [Section("y", content.blocks, content.lead)]).html()

    page = shown()
    assert "50.0 %" in page and "25.0 %" in page and ">7<" in page and "Every technique's" in page.replace("&#39;", "'")
    path = results.project.training("distillm")
    mechanism = {"ran": False, "why": "not DistiLLM here: no student-written token"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mechanism": mechanism}))
    assert "Of DistiLLM there is no verdict" in shown()
    assert "Not DistiLLM here: no student-written token." in verdicts(results)["2"].caveat


def test_an_auditors_attack_is_nobodys_best_and_stands_by_itself(results):
    """teacher_aware has the highest AUC of all; only its own table says so."""
    for name in STRENGTHS:
        path = results.project.membership(name)
        content = json.loads(path.read_text())
        content["attacks"]["teacher_aware"] = content["attacks"]["loss"] | {"auc": 0.999, "auc_ci95": [0.998, 1.0]}
        content["best_attack"] = "teacher_aware"
        path.write_text(json.dumps(content))
        assert best_attack(content) != "teacher_aware"
    params = params_of(audit__attacks=["loss", "zlib", "ref_external", "zlib_published", "ez", "teacher_aware"])
    content = what_leaked(Report(read_study(params, results.project), [], None))
    page = Page("x", [Section("y", content.blocks)]).html()
    assert page.count("teacher_aware") == 1 and "AUC, teacher_aware" in page and "no outsider has them" in page
    best = headline_metrics("membership", {"auc/loss": 0.8, "auc/teacher_aware": 0.999}, "loss")
    assert best["best_auc"] == 0.8 and best["auc_teacher_aware"] == 0.999
    study = read_study(params, results.project)
    write_csv(attacks_table(study), results.project.attacks_table)
    write_csv(models_table(study), results.project.models_table)
    write_json({"findings": []}, results.project.findings)
    written = results_markdown(params, results.project)
    assert written.count("`teacher_aware`") == 1 and "which are nobody's best" in written
    assert "teacher_aware †" in heatmap_drawing(read_study(params, results.project))


def test_the_terminal_shows_auditors_attacks_of_students_alone_and_realised_shares(results, monkeypatch, capsys):
    path = results.project.membership("kd")
    content = json.loads(path.read_text())
    content["attacks"]["teacher_aware"] = content["attacks"]["loss"] | {"auc": 0.999, "auc_ci95": [0.998, 1.0]}
    path.write_text(json.dumps(content))
    results.project.metrics.write_text("{}")
    monkeypatch.setattr(Provenance, "outdated", lambda *_: None)
    print_results(params_of(), results.project)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.index("no outsider has") < shown.index("teacher_aware") and shown.count("teacher_aware") == 1
    row = next(line for line in shown.splitlines() if line.startswith("student-written"))
    assert ".500" in row and "rollout rounds" in shown


def test_realised_shares_are_metrics_of_the_run_in_mlflow():
    training = {"realised": {"student_token_share": 0.5, "threshold": None}}
    assert realised_metrics(training) == {"realised_student_token_share": 0.5}
    assert headline_metrics("distill", realised_metrics(training), "loss") == {"realised_student_token_share": 0.5}
    assert realised_metrics({}) == {}
