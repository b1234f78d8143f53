"""The study's report: whole from whole results, honest from partial ones."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from kdleak.core.errors import KdleakError
from kdleak.core.paths import Project
from kdleak.core.seconds import read_seconds, timed_stage
from kdleak.models.families import load_family
from kdleak.pipeline.trial import at_rate, run_trial
from kdleak.report.study.published import agreement, closest
from kdleak.report.study.report import summary, write_report
from kdleak.report.study.results import read_study
from kdleak.report.study.sections.attacks import by_attack
from kdleak.report.study.sections.checks import corrected_against_published
from kdleak.report.study.sections.run import what_was_run
from kdleak.stats.correlation import spearman
from tests.support.pipeline_project import ROOT
from tests.support.study_results import STRENGTHS, StudyResults, params_of


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> StudyResults:
    made = StudyResults(tmp_path_factory.mktemp("study"))
    shutil.copy(ROOT / "families.yaml", made.project.root)
    for method in ("kd", "rkl"):
        made.trial(method, 0.1, 0.5 * STRENGTHS[method], 18.0)
    return made


@pytest.fixture(scope="module")
def report(results) -> str:
    write_report(params_of(study__lr_multipliers=[0.1]), results.project)
    return results.project.report.read_text()


def sections(report: str) -> dict[str, str]:
    return {m[1]: m[2] for m in re.finditer(r'<section id="([^"]+)">(.*?)</section>', report, re.DOTALL)}


def test_every_section_shows_something(report):
    found = sections(report)
    assert len(found) == 13
    for name, content in found.items():
        assert "<svg" in content or "<table" in content, name
        assert 'class="absent"' not in content or name == "what-was-run", name  # seconds: nothing ran here
    assert "nan" not in re.sub(r"<[^>]+>", " ", report).lower().split()


def test_the_same_results_are_the_same_bytes(results, report):
    paths = (results.project.report, results.project.findings, results.project.heatmap, results.project.heatmap_figure)
    before = [path.read_bytes() for path in paths]
    write_report(params_of(study__lr_multipliers=[0.1]), results.project)
    assert [path.read_bytes() for path in paths] == before


def test_the_findings_are_nine_verdicts(results, report):
    found = json.loads(results.project.findings.read_text())["findings"]
    assert [f["claim"] for f in found][:7] == [str(i) for i in range(1, 8)] and len(found) == 9


def test_the_heatmap_table_has_a_row_for_each_model_and_attack(results, report):
    table = pd.read_csv(results.project.heatmap)
    assert list(table.columns) == ["method", "attack", "auc", "auc_low", "auc_high"]
    assert len(table) == len(STRENGTHS) * 4 and table.groupby("method").size().eq(4).all()


def test_a_section_without_inputs_says_so_in_one_line(tmp_path):
    """The headline chain alone: teacher, No-KD and one student, attacked and nothing else."""
    made = StudyResults(tmp_path, strengths={name: STRENGTHS[name] for name in ("teacher", "sft", "kd")})
    shutil.copy(ROOT / "families.yaml", tmp_path)
    for name in ("teacher", "sft", "kd"):
        for path in (made.project.memorization(name), made.project.blocks(name), made.project.utility(name)):
            path.unlink()
        for path in (made.project.memorization_table(name), made.project.block_scores(name)):
            path.unlink()
    write_report(params_of(), made.project)
    found = sections(made.project.report.read_text())
    for name in ("by-transformer-block", "what-the-models-say-word-for-word", "usefulness-against-leak"):
        assert 'class="absent"' in found[name] and "<svg" not in found[name]
    assert "<svg" in found["what-leaked"]


def test_an_attack_that_was_asked_for_but_not_run_yet_leaves_no_gap(results):
    params = params_of(audit__attacks=["loss", "mope", "zlib", "zlib_published", "mink", "mink_published"])
    study = read_study(params, results.project)
    published = closest(load_family(ROOT / "families.yaml", "gpt2-tiny"), "gpt2-tiny", "small")
    shown = "".join(str(block) for block in by_attack(study, published).blocks)
    assert ">loss<" in shown and ">mope<" not in shown
    assert "mink" not in "".join(str(block) for block in corrected_against_published(study).blocks)


def test_a_teacher_alone_makes_a_report_and_nothing_at_all_does_not(tmp_path):
    shutil.copy(ROOT / "families.yaml", tmp_path)
    with pytest.raises(KdleakError, match="no model has been attacked yet; run 'dvc repro"):
        write_report(params_of(), Project(tmp_path))
    StudyResults(tmp_path, strengths={"teacher": 2.0})
    write_report(params_of(), Project(tmp_path))
    assert "Only the teacher" in Project(tmp_path).report.read_text()


def test_a_split_that_gives_membership_away_is_said_before_anything_else(tmp_path):
    made = StudyResults(tmp_path, strengths={name: STRENGTHS[name] for name in ("teacher", "sft", "kd")})
    path = made.project.membership("kd")
    content = json.loads(path.read_text())
    content["controls"]["blind"] |= {"passed": False, "verdict": "The split itself gives membership away."}
    path.write_text(json.dumps(content))
    first, _ = summary(read_study(params_of(), made.project), [])
    assert "The split itself gives membership away. No figure below can be read as a leak" in first


def test_the_seconds_of_stages_that_ended_well_stand_in_the_report(results, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "study/dvc.yaml:distill@kd")
    with timed_stage(results.project):
        pass
    with pytest.raises(SystemExit), timed_stage(results.project):
        raise SystemExit(0)
    monkeypatch.setenv("DVC_STAGE", "teacher")
    with pytest.raises(SystemExit), timed_stage(results.project):
        raise SystemExit(1)
    assert list(read_seconds(results.project)) == ["distill@kd"]
    study = read_study(params_of(), results.project)
    assert any("distill@kd" in block for block in what_was_run(study).blocks)
    shutil.rmtree(results.project.seconds)


def test_outside_dvc_no_seconds_are_noted(tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_STAGE", raising=False)
    with timed_stage(Project(tmp_path)):
        pass
    assert read_seconds(Project(tmp_path)) == {}


@pytest.mark.parametrize(("student", "size"), [("small", "medium"), ("medium", "large")])
def test_the_papers_size_is_the_one_with_the_nearest_share_of_its_teacher(student, size):
    family = load_family(ROOT / "families.yaml", "gpt2-tiny")
    published = closest(family, "gpt2-tiny", student)
    assert (published.family, published.size) == ("gpt2", size)
    assert published.auc("sft", "loss") == 0.51 and np.isnan(published.auc("rkl", "loss"))


def test_the_published_figures_agree_with_themselves(results):
    """Scores whose AUCs rank as the paper's do correlate perfectly with them."""
    published = closest(load_family(ROOT / "families.yaml", "gpt2-tiny"), "gpt2-tiny", "small")
    cells = [(model, attack) for model in ("kd", "gkd", "minillm") for attack in ("loss", "zlib", "ref_external")]

    class Exact:
        def __init__(self, value):
            self.value, self.members, self.nonmembers = value, np.full(5, value), np.full(5, value)

    found = agreement({cell: Exact(published.auc(*cell)) for cell in cells}, published, seed=0)
    assert found.value == pytest.approx(1.0) and found.cells == 9
    assert spearman(np.arange(3.0), -np.arange(3.0)) == pytest.approx(-1)


def test_a_trial_is_the_same_recipe_at_another_rate():
    params = params_of(study__lr_multipliers=[0.5, 3])
    changed = at_rate(params, "kd", 0.5).kd.recipes
    assert (
        changed["kd"].lr == 0.5 * params.kd.recipes["kd"].lr and changed["kd"].epochs == params.kd.recipes["kd"].epochs
    )
    assert changed["rkl"] == params.kd.recipes["rkl"]


def test_a_rate_that_the_study_does_not_have_is_refused(tmp_path):
    with pytest.raises(KdleakError, match=r"'0\.7' is not in study\.lr_multipliers, which holds 0\.5, 3"):
        run_trial("kd", "0.7", params_of(study__lr_multipliers=[0.5, 3]), Project(tmp_path))
    with pytest.raises(KdleakError, match=r"'tvd' is not in study\.methods"):
        run_trial("tvd", "3", params_of(study__lr_multipliers=[3]), Project(tmp_path))


@pytest.mark.parametrize(
    ("rates", "said"), [([1], "1 is the recipe itself"), ([0.5, 0.5], "stands twice"), ([1e-9], "out of bounds")]
)
def test_rates_that_make_no_sweep_are_refused(rates, said):
    with pytest.raises(KdleakError, match=said):
        params_of(study__lr_multipliers=rates)


def test_only_the_rates_asked_for_are_read(results):
    assert set(read_study(params_of(study__lr_multipliers=[0.1]), results.project).trials) == {"kd", "rkl"}
    assert read_study(params_of(), results.project).trials == {}
