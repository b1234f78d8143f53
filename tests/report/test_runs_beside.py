"""Runs that differ from the default ones in one thing: what claims, findings and report make of them."""

from __future__ import annotations

import json
import shutil
from copy import copy
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest

from kdleak.core.errors import KdleakError
from kdleak.core.paths import Project
from kdleak.core.variants import Variant
from kdleak.distill.recipes import check_methods, run_options, varied
from kdleak.models.families import load_family
from kdleak.render.mechanism import mechanism_absent
from kdleak.render.page import Page, Section
from kdleak.report.study.claims import CLAIMS, findings_of
from kdleak.report.study.findings import CONTRADICTED, INCONCLUSIVE, NOT_RUN, REPRODUCED, Finding, View
from kdleak.report.study.published import closest
from kdleak.report.study.results import Study, read_study
from kdleak.report.study.sections import SECTIONS, Report, sections
from tests.support.pipeline_project import ROOT
from tests.support.study_results import REALISED, STRENGTHS, StudyResults, params_of

#: DistiLLM's training.json where its validation loss fell in every epoch: the threshold is where it began.
NEVER_ROSE = {
    "method": "distillm",
    "text": "adaptive",
    "options": {"threshold": 0.2},
    "realised": REALISED | {"threshold": 0.2, "student_token_share": 0.217},
    "mechanism": {
        "ran": False,
        "why": "not DistiLLM here: its validation loss never rose, so its scheduler never fired",
    },
}
SAID = (
    "DistiLLM's scheduler never fired here: its validation loss never rose, so its threshold stayed at .20, with "
    "21.7 % of its text its own"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> StudyResults:
    made = StudyResults(tmp_path_factory.mktemp("study"), n=300)
    findings_of(read_study(params_of(), made.project))  # claims and sections register as they are first asked for
    sections()
    return made


@pytest.fixture
def results(made, tmp_path) -> StudyResults:
    """A copy of results that take seconds to make."""
    shutil.copytree(made.project.root, tmp_path, dirs_exist_ok=True)
    copied = copy(made)
    copied.project = Project(tmp_path)
    return copied


PUBLISHED = closest(load_family(ROOT / "families.yaml", "gpt2-tiny"), "gpt2-tiny", "small")


def verdicts(results: StudyResults, names: str, **changes: object) -> dict[str, Finding]:
    """The findings on the claims `names`, parted by commas."""
    return found_by(read_study(params_of(**changes), results.project), names)


def found_by(study: Study, names: str) -> dict[str, Finding]:
    with patch.dict(CLAIMS, {name: CLAIMS[name] for name in names.split(",")}, clear=True):
        return {finding.claim: finding for finding in findings_of(study)}


def page_of(results: StudyResults, title: str, names: str = "LM corpus", **changes: object) -> str:
    study = read_study(params_of(**changes), results.project)
    content = SECTIONS[title].content(Report(study, list(found_by(study, names).values()), PUBLISHED))
    return Page("x", [Section(title, content.blocks, content.lead)]).html().replace("&#39;", "'")


def share(value: float | None) -> dict[str, Any]:
    return {"realised": REALISED | {"student_token_share": value}}


# What a run changes


def test_a_run_changes_one_thing_and_nothing_else():
    params = params_of(study__lr_multipliers=[0.5], study__seeds=[3], study__grids=["paper"],
                       study__fractions=[0, 1], study__lm_weights=[2.0])  # fmt: skip
    plain = run_options("kd", params.kd)
    changed = {run.name: varied(params, run) for run in params.study.variants if run.method == "kd"}
    assert set(changed) == {"rate-0.5", "seed-3", "grid-paper", "fraction-0", "fraction-1", "lm_weight-2.0"}
    options = {name: run_options("kd", each.kd) for name, each in changed.items()}
    assert options["rate-0.5"] == plain.model_copy(update={"lr": 0.5 * plain.lr})
    assert options["seed-3"] == plain and changed["seed-3"].seed == 3
    assert (plain.starts_from, options["grid-paper"].starts_from) == ("sft", "base")
    assert options["fraction-1"] == plain.model_copy(update={"student_fraction": 1})
    assert options["lm_weight-2.0"] == plain.model_copy(update={"lm_weight": 2.0})
    for name, each in changed.items():
        assert each.model_dump(exclude={"kd", "seed"}) == params.model_dump(exclude={"kd", "seed"})
        assert each.seed == (3 if name == "seed-3" else params.seed)


def test_in_the_papers_grid_a_technique_has_the_start_and_the_corpus_of_its_paper():
    params = params_of(study__grids=["paper"])
    for method, start, weight in (("kd", "base", 0), ("imitkd", "sft", 0), ("distillm", "sft", 1.0)):
        options = run_options(method, varied(params, Variant(method, grid="paper")).kd)
        assert (options.starts_from, options.lm_weight) == (start, weight)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"study__seeds": [0]}, "study.seeds: 0 is 'seed' itself"),
        ({"study__seeds": [1, 1]}, "seeds: a value stands twice"),
        ({"study__divergences": ["kd", "kd"]}, "divergences: a method stands twice"),
        ({"study__fractions": [0.5], "study__divergences": ["tvd"]}, "divergences: 'tvd' is not in study.methods"),
        ({"study__fractions": [0.5], "study__divergences": ["kd", "minillm"]},
         "study: run 'minillm-fraction-0.5': kd.student_fraction: 'minillm' decides itself"),
        ({"study__grids": ["paper"], "kd__grid": "paper"}, "study.grids: 'paper' stands beside kd.grid controlled"),
        ({"study__grids": ["controlled"]}, "study.grids"),
        ({"study__lm_weights": [1.0], "kd__lm_weight": 0.5}, "study.lm_weights: kd.lm_weight gives every run an LM l"),
    ],
)  # fmt: skip
def test_lists_that_ask_for_no_run_of_their_own_are_refused(changes, said):
    with pytest.raises(KdleakError) as caught:
        check_methods(params_of(**changes))
    assert said in str(caught.value)


# Claim 4


def swept(results: StudyResults, strengths: dict[Variant, float]) -> dict[str, object]:
    for run, strength in strengths.items():
        results.trial(run, strength, **share(run.fraction))
    return {"study__fractions": [0, 0.5, 1]}


def test_claim_four_is_judged_on_the_sweep_of_student_written_data_alone(results):
    """ImitKD and GKD leak less than KD and JSD here, which says nothing: they differ in more than their data."""
    rising = {Variant(m, fraction=f): 0.5 + f for m in ("kd", "rkl") for f in (0, 0.5, 1)}
    lists = swept(results, rising)
    found = verdicts(results, "4", **lists)["4"]
    assert found.verdict == REPRODUCED and found.runs == 1
    assert {c.contrast.name for c in found.compared} == {f"{m} at a share of 1 over 0" for m in ("KD", "reverse KL")}
    assert found.figures["student_token_share"]["rkl-fraction-0.5"] == 0.5
    assert set(found.figures["auc"]["loss"]) == {str(run) for run in rising}
    alone = "the share of student-written data alone, with KD and reverse KL in the controlled grid"
    assert alone in found.conditional_on
    assert "ImitKD" not in found.answer
    swept(results, {Variant("rkl", fraction=f): 1.5 - f for f in (0, 1)})
    assert verdicts(results, "4", **lists)["4"].verdict == CONTRADICTED  # one divergence the other way


def test_one_divergence_or_text_that_nobody_wrote_is_no_sweep(results):
    lists = swept(results, {Variant("kd", fraction=f): 1.0 for f in (0, 0.5, 1)})
    alone = verdicts(results, "4", **lists)["4"]
    assert alone.verdict == NOT_RUN and "Swept here: KD alone." in alone.answer and "study.fractions" in alone.answer
    for fraction in (0, 1):
        results.trial(Variant("rkl", fraction=fraction), 1.0, **share(0.0))
    assert verdicts(results, "4", **lists)["4"].verdict == NOT_RUN


# Grids and corpus


def test_both_grids_stand_side_by_side_and_claims_are_judged_on_the_controlled_one(results):
    before = verdicts(results, "1,2,3,4")
    for method in STRENGTHS:
        if Variant(method).is_distilled:
            results.trial(Variant(method, grid="paper"), 2.0 if method == "minillm" else 0.4, 33.3, starts_from="base")
    found = verdicts(results, "1,2,3,4,2 in the paper's grid,3 in the paper's grid", study__grids=["paper"])
    assert all(found[claim] == before[claim] for claim in before)
    other = found["2 in the paper's grid"]
    assert other.verdict == CONTRADICTED and other.answer.startswith("By loss from most to least: MiniLLM")
    third = found["3 in the paper's grid"]
    assert third.verdict == INCONCLUSIVE and not any("controlled" in each for each in third.conditional_on)
    shown = page_of(results, "Two grids", study__grids=["paper"])
    assert shown.count("33.3") == len(STRENGTHS) - 2
    assert "In the controlled grid KD leaks most and MiniLLM least" in shown
    assert "of its paper, MiniLLM leaks most" in shown
    assert "run <code>dvc exp run -P -S 'study.grids=[paper]'</code>" in page_of(results, "Two grids")


def test_what_the_corpus_does_is_said_of_the_divergences_that_ran_with_it_and_without(results):
    results.trial(Variant("kd", lm_weight=1.0), 0.5 * STRENGTHS["kd"], 44.4)
    found = verdicts(results, "LM corpus", study__lm_weights=[1.0])["LM corpus"]
    assert found.verdict == REPRODUCED and "KD without the LM loss over KD with it (weight 1)" in found.answer
    assert any(condition.startswith("the corpus ") for condition in found.conditional_on)
    shown = page_of(results, "Two grids", study__lm_weights=[1.0])
    assert "44.4" in shown and "weight 1" in shown and "KD without the LM loss over KD with it" in shown


# Seeds


def test_several_trainings_are_compared_by_their_mean_paired_by_seed(results):
    for seed in (1, 2):
        for method in ("kd", "rkl"):
            results.trial(Variant(method, seed=seed), STRENGTHS[method] - (0.6 if method == "rkl" else 0))
    one, found = verdicts(results, "3"), verdicts(results, "1,2,3", study__seeds=[1, 2])
    third = found["3"]
    assert third.runs == 3 and one["3"].runs == 1
    tables = {
        (method, seed): pd.read_parquet(results.project.scores(Variant(method, seed=seed)))
        for method in ("kd", "rkl")
        for seed in (None, 1, 2)
    }
    by_seed = [auc(tables["kd", seed]) - auc(tables["rkl", seed]) for seed in (None, 1, 2)]
    by_loss = next(c for c in third.compared if c.view == View("loss"))
    assert by_loss.contrast.value == pytest.approx(np.mean(by_seed))
    assert by_loss.contrast.between == pytest.approx(np.std(by_seed, ddof=1) / 3**0.5)
    assert by_loss.contrast.error > by_loss.contrast.between
    said = third.record()
    assert said["runs"] == 3 and said["comparisons"][0]["runs"] == 3 and "paired by seed" in said["test"]
    assert "3 trainings of each student, of seeds 0, 1 and 2, by one teacher" in said["conditional_on"][0]
    for claim in ("1", "2"):  # techniques that were trained once: no finding of all of them rests on more
        assert found[claim].runs == 1 and "one training of the teacher" in found[claim].conditional_on[0]


def test_every_technique_at_every_seed_makes_findings_of_so_many_runs(results):
    for seed in (1, 2):
        for method in STRENGTHS:
            if Variant(method).is_distilled:
                results.trial(Variant(method, seed=seed), STRENGTHS[method])
    found = verdicts(results, "1,2,3,5,6,7", study__seeds=[1, 2])
    assert {claim: found[claim].runs for claim in "123567"} == {"1": 3, "2": 3, "3": 3, "5": 3, "6": 1, "7": 1}
    assert found["1"].verdict == REPRODUCED and found["5"].verdict == INCONCLUSIVE
    shown = page_of(results, "One thing changed", study__seeds=[1, 2])
    assert "sd between trainings" in shown and "Seeds 0, 1 and 2, the same teacher" in shown and "seed-2" in shown
    results.trial(Variant("distillm", seed=2), 3.0, **NEVER_ROSE)  # a training that is no DistiLLM counts for none
    assert verdicts(results, "2", study__seeds=[1, 2])["2"].runs == 2


def auc(table: pd.DataFrame) -> float:
    members, others = (table.loc[table["role"] == role, "loss"].to_numpy() for role in ("private", "heldout"))
    return float((members[:, None] > others).mean())


# DistiLLM


def test_a_scheduler_that_never_fired_is_said_by_name_everywhere(results):
    assert mechanism_absent("distillm", NEVER_ROSE) == SAID
    path = results.project.training("distillm")
    path.write_text(json.dumps(json.loads(path.read_text()) | NEVER_ROSE))
    found = verdicts(results, "1,2,6")
    for claim in found:
        assert SAID in found[claim].caveat and not any("DistiLLM" in c.contrast.name for c in found[claim].compared)
        assert SAID in json.dumps(found[claim].record(), ensure_ascii=False)
    assert SAID in page_of(results, "What the techniques did") and SAID in page_of(results, "The paper's claims", "1,2")


def test_a_scheduler_that_fired_is_no_news():
    rose = NEVER_ROSE | {"realised": NEVER_ROSE["realised"] | {"threshold": 0.3}, "mechanism": {"ran": True, "why": ""}}
    assert mechanism_absent("distillm", rose) == ""
    other = {"mechanism": {"ran": False, "why": "not GKD here: no student-written token"}}
    assert mechanism_absent("gkd", other) == "Not GKD here: no student-written token"
