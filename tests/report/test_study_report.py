"""The study's report: whole from whole results, honest from partial ones."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from kdleak.core.errors import KdleakError
from kdleak.core.files import write_json
from kdleak.core.paths import Project
from kdleak.core.variants import Variant
from kdleak.distill.recipes import check_methods
from kdleak.models.families import load_family
from kdleak.pipeline.trial import run_trial
from kdleak.render.blocks import Paragraph
from kdleak.render.page import Page, Section
from kdleak.report.study.claims import CLAIMS, claim, findings_of
from kdleak.report.study.findings import Finding, not_measured
from kdleak.report.study.published import agreement, closest
from kdleak.report.study.report import study_page, write_report
from kdleak.report.study.results import Study, read_study
from kdleak.report.study.sections import SECTIONS, Content, Report, section
from kdleak.report.study.sections import sections as registered
from kdleak.report.study.sections.attacks import by_attack
from kdleak.report.study.sections.definitions import corrected_against_published
from kdleak.shadow.report import settings_of
from kdleak.stats.correlation import spearman
from tests.report.test_epsilon_section import audit
from tests.support.frontier import compared_defences
from tests.support.pipeline_project import ROOT
from tests.support.study_results import STRENGTHS, StudyResults, params_of


def anchor(title: str) -> str:
    return Section(title, []).anchor


#: Parameters with a run of every kind beside the default ones.
SWEPT = params_of(
    study__lr_multipliers=[0.1], study__seeds=[1], study__grids=["paper"], study__fractions=[0, 1],
    study__lm_weights=[1.0],
)  # fmt: skip


def report_of(study: Study) -> Report:
    published = closest(load_family(ROOT / "families.yaml", "gpt2-tiny"), "gpt2-tiny", "small")
    return Report(study, findings_of(study), published)


def of(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.02, "high": value + 0.02, "error": 0.01}


ATTACKED = {each: {"auc": of(0.8), "tpr_at_0.01": of(0.2), "tpr_at_0.001": None} for each in ("loss", "ez", "lira:ez")}
PASSED_ON = {each: {"tau": of(0.5), "correlation": 0.9} for each in ("loss", "ez")}
#: Of results/shadow/report.json what a reader is shown.
SHADOW = {
    **settings_of(params_of()), "models": 16, "records": 280, "attacks": {"kd": ATTACKED, "teacher": ATTACKED},
    "transfer": {"kd": PASSED_ON}, "processing": {"kd": {"state": "passed"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> StudyResults:
    made = StudyResults(tmp_path_factory.mktemp("study"))
    shutil.copy(ROOT / "families.yaml", made.project.root)
    for run in SWEPT.study.variants:
        if run.method in ("kd", "rkl"):
            made.trial(run, 0.5 * STRENGTHS[run.method])
    write_json(SHADOW, made.project.shadow_report)
    write_json(compared_defences(), made.project.frontier)
    write_json({"audits": {"none": audit(2.0)}}, made.project.epsilon_report)
    return made


@pytest.fixture(scope="module")
def report(results) -> str:
    write_report(SWEPT, results.project)
    return results.project.report.read_text()


def sections(report: str) -> dict[str, str]:
    return {m[1]: m[2] for m in re.finditer(r'<section id="([^"]+)">(.*?)</section>', report, re.DOTALL)}


def test_every_section_shows_something(report):
    found = sections(report)
    assert list(found) == [anchor(each.title) for each in registered()]
    for name, content in found.items():
        assert "<svg" in content or "<table" in content, name
        assert 'class="absent"' not in content, name
    assert "nan" not in re.sub(r"<[^>]+>", " ", report).lower().split()


def test_controls_stand_with_their_state_and_a_blind_scorer_is_called_what_it_is(results, report):
    shown = sections(report)[anchor("Controls")]
    assert "placebo of teacher_aware" in shown and "shuffled labels" in shown and "passed" in shown
    assert "A classifier that reads the text and asks no model" in shown
    study = read_study(params_of(), results.project)
    controls = study.models["kd"].membership["controls"]
    controls["blind"] |= {"state": "failed", "scorer": "pretrained", "verdict": "It tells them apart."}
    controls["permutation"] |= {"state": "failed"}
    controls["placebo"]["teacher_aware"] |= {"state": "could not run"}
    shown = "".join(str(block) for block in SECTIONS["Controls"].content(report_of(study)).blocks)
    assert "The pretrained base, which saw neither list" in shown and "classifier" not in shown
    assert shown.count("failed") >= 2 and "could not run" in shown


def test_overlaps_and_canaries_stand_beside_the_no_kd_students_with_intervals(report):
    exposed = sections(report)[anchor("What students inherit")]
    assert "The most exposed members" in exposed and "the no-KD student" in exposed and "beyond it" in exposed
    beyond = exposed.split("beyond the no-KD student</th>")[1]
    row = re.search(r"<tr><td class=\"word\">KD.*?</tr>", beyond, re.DOTALL)[0]
    assert len(re.findall(r"\[[^\]]+, [^\]]+\]", row)) == 2  # the thresholds that a member passes here
    canaries = sections(report)[anchor("Verbatim memorization")]
    assert "beyond no-KD student, 16 ×" in canaries and "exposure, 1 ×" in canaries
    row = re.search(r"<tr><td class=\"word\">KD.*?</tr>", canaries.split("exposure, 1 ×")[1], re.DOTALL)[0]
    assert len(re.findall(r"\[[^\]]+, [^\]]+\]", row)) == 7  # three levels, their contrast, three excesses


def test_the_same_results_are_the_same_bytes(results, report):
    made = results.project
    paths = (made.report, made.findings, made.attacks_table, made.models_table, made.heatmap_figure)
    before = [path.read_bytes() for path in paths]
    write_report(SWEPT, results.project)
    assert [path.read_bytes() for path in paths] == before


def test_the_findings_are_twelve_verdicts(results, report):
    found = json.loads(results.project.findings.read_text())["findings"]
    assert [f["claim"] for f in found][:7] == [str(i) for i in range(1, 8)] and len(found) == 12
    tests = json.loads(results.project.comparisons.read_text())
    assert list(tests) == sorted(f["claim"] for f in found) and tests["1"][0]["what"].endswith("over no-KD student")


def test_what_git_keeps_is_a_row_for_each_model_and_attack_and_for_each_model(results, report):
    table = pd.read_csv(results.project.attacks_table)
    assert list(table.columns)[:5] == ["method", "attack", "auc", "auc_low", "auc_high"]
    assert len(table) == len(STRENGTHS) * 5 and table.groupby("method").size().eq(5).all()
    membership = json.loads(results.project.membership("kd").read_text())
    row = table.set_index(["method", "attack"]).loc[("kd", "zlib")]
    assert row["auc"] == membership["attacks"]["zlib"]["auc"]
    assert row["tpr_at_1pct_fpr"] == membership["attacks"]["zlib"]["tpr_at_fpr"]["0.01"]
    over = membership["controls"]["no_kd"]["zlib"]["excess"]
    assert [row["excess"], row["excess_low"], row["excess_high"]] == [over["difference"], *over["ci95"]]
    models = pd.read_csv(results.project.models_table).set_index("method")
    assert set(models.index) == set(STRENGTHS)
    assert models.loc["kd", "perplexity"] == json.loads(results.project.utility("kd").read_text())["perplexity"]
    gap = json.loads(results.project.memorization("kd").read_text())["token_accuracy"]["gap"]
    assert models.loc["kd", "token_accuracy_gap"] == gap


def test_a_section_without_inputs_says_so_in_one_line(tmp_path):
    """The headline chain alone: teacher, no-KD student and one student, attacked and nothing else."""
    made = StudyResults(tmp_path, strengths={name: STRENGTHS[name] for name in ("teacher", "sft", "kd")})
    shutil.copy(ROOT / "families.yaml", tmp_path)
    for name in ("teacher", "sft", "kd"):
        for path in (made.project.memorization(name), made.project.blocks(name), made.project.utility(name)):
            path.unlink()
        for path in (made.project.memorization_table(name), made.project.block_scores(name)):
            path.unlink()
    write_report(params_of(), made.project)
    found = sections(made.project.report.read_text())
    for name in ("by-transformer-block", "verbatim-memorization", "usefulness-against-leak"):
        assert 'class="absent"' in found[name] and "<svg" not in found[name]
    assert "<svg" in found["what-leaked"]


def test_an_attack_that_was_asked_for_but_not_run_yet_leaves_no_gap(results):
    params = params_of(audit__attacks=["loss", "mope", "zlib", "zlib_published", "mink", "mink_published"])
    study = read_study(params, results.project)
    report = report_of(study)
    shown = "".join(str(block) for block in by_attack(report).blocks)
    assert ">loss<" in shown and ">mope<" not in shown
    assert "mink" not in "".join(str(block) for block in corrected_against_published(report).blocks)


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
    content["controls"]["blind"] |= {"state": "failed", "verdict": "The split itself gives membership away."}
    path.write_text(json.dumps(content))
    said = study_page(report_of(read_study(params_of(), made.project))).split("<header>")[1]
    alarm = "The split itself gives membership away. No figure below can be read as a leak"
    assert said.index(alarm) < said.index("<ul>")


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


def test_a_run_that_the_study_does_not_have_is_refused(tmp_path):
    with pytest.raises(KdleakError, match=r"'rate-0\.7' of 'kd' is no run .* ask for rate-0\.5, rate-3; add it to pa"):
        run_trial("kd", "rate-0.7", params_of(study__lr_multipliers=[0.5, 3]), Project(tmp_path))
    with pytest.raises(KdleakError, match=r"'rate-3' of 'tvd' is no run .* ask for none of it"):
        run_trial("tvd", "rate-3", params_of(study__lr_multipliers=[3]), Project(tmp_path))


@pytest.mark.parametrize(
    ("rates", "said"), [([1], "1 is the recipe itself"), ([0.5, 0.5], "stands twice"), ([1e-9], "out of bounds")]
)
def test_rates_that_make_no_sweep_are_refused(rates, said):
    with pytest.raises(KdleakError, match=said):
        check_methods(params_of(study__lr_multipliers=rates))


def test_only_the_runs_asked_for_are_read(results):
    trials = read_study(params_of(study__lr_multipliers=[0.1]), results.project).trials
    assert set(trials) == {Variant("kd", rate=0.1), Variant("rkl", rate=0.1)}
    assert read_study(params_of(), results.project).trials == {}


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Study:
    """A teacher's attacks and nothing else: what is optional is absent."""
    made = StudyResults(tmp_path_factory.mktemp("bare"), strengths={"teacher": 2.0})
    project = made.project
    for path in (project.memorization("teacher"), project.blocks("teacher"), project.utility("teacher")):
        path.unlink()
    for path in (project.memorization_table("teacher"), project.block_scores("teacher"), project.scores("teacher")):
        path.unlink()
    return read_study(params_of(), project)


@pytest.mark.parametrize("title", [each.title for each in registered()])
def test_a_section_renders_with_all_results_and_with_none_that_are_optional(title, results, bare):
    """Every registered section: a new one is tested by being registered."""
    for study in (read_study(SWEPT, results.project), bare):
        content = SECTIONS[title].content(report_of(study))
        assert isinstance(content, Content) and content.blocks
        shown = Page("x", [Section(title, content.blocks, content.lead)], summary=[content.gist, content.alarm]).html()
        assert not re.search(r"\b(nan|None)\b", re.sub(r"<style>.*?</style>|<[^>]+>", " ", shown, flags=re.DOTALL))
        assert "<script" not in shown


def test_titles_and_places_of_sections_are_their_own():
    titles = [anchor(each.title) for each in registered()]
    assert len(set(titles)) == len(titles) and len({each.order for each in registered()}) == len(titles)


def test_a_section_is_one_function(results):
    """Registered here, it stands in the page, its contents and its summary; nothing else is touched."""

    @section("A toy", order=15)
    def toy(report: Report) -> Content:
        return Content([Paragraph(f"{len(report.study.models)} models")], gist="The toy says so.")

    try:
        page = study_page(report_of(read_study(params_of(), results.project)))
    finally:
        del SECTIONS["A toy"]
    assert list(sections(page))[1] == "a-toy" and "9 models" in sections(page)["a-toy"]
    assert '<a href="#a-toy">A toy</a>' in page and "<li>The toy says so.</li>" in page


def test_a_claim_is_one_function(results):
    @claim("8")
    def toy(study: Study) -> Finding:
        return not_measured("8", "Toys leak.", "none", "Nobody asked.")

    try:
        report = report_of(read_study(params_of(), results.project))
    finally:
        del CLAIMS["8"]
    assert [finding.claim for finding in report.findings][6:9] == ["7", "8", "2 at equal utility"]
    page = study_page(report)
    assert "Toys leak." in page and "eight claims" in page


def test_no_text_of_a_record_stands_in_the_report(tmp_path):
    """Result files may carry columns that a section has no business with; none reaches the page."""
    made = StudyResults(tmp_path, strengths={name: STRENGTHS[name] for name in ("teacher", "sft", "kd")})
    shutil.copy(ROOT / "families.yaml", tmp_path)
    for name in ("teacher", "sft", "kd"):
        for path in (made.project.scores(name), made.project.memorization_table(name), made.project.facts(name)):
            pd.read_parquet(path).assign(text="PRIVATE-TEXT").to_parquet(path)
    write_report(params_of(), made.project)
    for path in (made.project.report, made.project.findings, made.project.attacks_table, made.project.models_table):
        assert "PRIVATE-TEXT" not in path.read_text()
