"""docs/results.md says what the files in results/ say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kdleak.config.load import load_params
from kdleak.core.errors import KdleakError
from kdleak.core.paths import Project
from kdleak.report.study.markdown import results_markdown, write_markdown
from kdleak.report.study.report import write_report
from tests.support.pipeline_project import ROOT
from tests.support.study_results import STRENGTHS, StudyResults, params_of


def test_the_committed_results_page_is_that_of_the_committed_results():
    project = Project(ROOT)
    written = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    assert written == results_markdown(load_params(project.params), project), (
        "docs/results.md is not that of results/: run 'kdleak report --markdown docs/results.md'"
    )


def reported(folder: Path, strengths: dict[str, float]) -> StudyResults:
    made = StudyResults(folder, strengths=strengths)
    shutil.copy(ROOT / "families.yaml", folder)
    write_report(params_of(), made.project)
    return made


def test_every_model_and_attack_has_its_figures(tmp_path):
    made = reported(tmp_path, STRENGTHS)
    write_markdown(params_of(), made.project, tmp_path / "docs/results.md")
    written = (tmp_path / "docs/results.md").read_text()
    assert written == results_markdown(params_of(), made.project) and "nan" not in written and "None" not in written
    assert len([line for line in written.splitlines() if "| `ref_external` |" in line]) >= len(STRENGTHS)
    made.project.findings.write_text(
        '{"findings": [{"claim": "1", "says": "It leaks.", "verdict": "reproduced", "answer": "Yes.", "caveat": "", '
        '"conditional_on": ["one seed"]}]}'
    )
    assert "| 1 | It leaks. | reproduced | Yes. | one seed |" in results_markdown(params_of(), made.project)


def test_a_changed_figure_changes_the_page(tmp_path):
    made = reported(tmp_path, {name: STRENGTHS[name] for name in ("teacher", "sft", "kd")})
    before = results_markdown(params_of(), made.project)
    made.utility(made.project.utility("kd"), 3.0)
    write_report(params_of(), made.project)
    assert results_markdown(params_of(), made.project) == before.replace("| 14.8 |", "| 3.0 |") != before


def test_without_results_one_line_says_what_to_run(tmp_path):
    with pytest.raises(KdleakError, match=r"attacks\.csv: no such file; 'dvc repro -P' writes it"):
        results_markdown(params_of(), Project(tmp_path))
