"""`kdleak verify`: equal verdicts and figures within tolerance are the same results; nothing else is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from kdleak.core.errors import KdleakError
from kdleak.core.paths import Project
from kdleak.report.verify import print_verification, verified

METRICS = {"method": "kd", "student_auc": 0.86, "student_auc_low": 0.83, "perplexity": 100.0, "best_attack": "ez"}
FINDINGS = {"findings": [{"claim": "1", "verdict": "reproduced"}, {"claim": "2", "verdict": "inconclusive"}]}


@pytest.fixture
def project(tmp_path) -> Project:
    """A repository with committed results."""
    made = Project(tmp_path)
    made.metrics.parent.mkdir()
    made.metrics.write_text(json.dumps(METRICS))
    made.findings.write_text(json.dumps(FINDINGS))
    row = {"method": "kd", "attack": "loss", "auc": 0.86, "auc_low": 0.83, "tpr_at_1pct_fpr": 0.06, "excess": 0.33}
    pd.DataFrame([row, {**row, "method": "teacher", "excess": None}]).to_csv(made.attacks_table, index=False)
    pd.DataFrame([{"method": "kd", "perplexity": 100.0, "rouge_l": 0.11}]).to_csv(made.models_table, index=False)
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for command in (("init", "-q"), ("add", "-A"), (*who, "commit", "-qm", "results")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return made


def write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content))


def test_another_processors_digits_are_the_same_results(project, capsys):
    write(project.metrics, METRICS | {"student_auc": 0.871, "perplexity": 103.0, "best_attack": "wbc"})
    table = pd.read_csv(project.attacks_table)
    table.assign(auc=table["auc"] - 0.015, tpr_at_1pct_fpr=0.1).to_csv(project.attacks_table, index=False)
    result = verified(project)
    assert (result.verdicts, result.figures, result.differences) == (2, 3 + 5 + 2, ())
    print_verification(result)
    shown = capsys.readouterr().out
    assert "The results here say what those of HEAD say." in shown and max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"student_auc": 0.895}, "student_auc"),
        ({"perplexity": 106.0}, "perplexity"),
        ({"method": "rkl"}, "method"),
        ({"teacher_auc": 0.97}, "teacher_auc"),
    ],
)
def test_a_figure_outside_its_tolerance_is_named(project, change, what):
    write(project.metrics, METRICS | change)
    assert [each.what for each in verified(project).differences] == [what]


def test_a_changed_verdict_and_a_missing_row_are_named(project, capsys):
    findings = [{"claim": "1", "verdict": "contradicted"}, FINDINGS["findings"][1]]
    write(project.findings, {"findings": findings})
    pd.read_csv(project.attacks_table).iloc[:1].to_csv(project.attacks_table, index=False)
    result = verified(project)
    assert [each.what for each in result.differences] == [
        "claim 1", "teacher loss auc", "teacher loss tpr_at_1pct_fpr",
    ]  # fmt: skip
    print_verification(result)
    shown = capsys.readouterr().out
    assert "claim 1: contradicted here, reproduced in HEAD" in shown and "teacher loss auc: none here" in shown
    assert "3 differ: the results here are not those of HEAD." in shown


def test_a_verdict_at_its_border_is_told_and_no_difference(project, capsys):
    findings = [FINDINGS["findings"][0], {"claim": "2", "verdict": "contradicted"}]
    write(project.findings, {"findings": findings})
    result = verified(project)
    assert result.differences == () and [each.what for each in result.moved] == ["claim 2"]
    print_verification(result)
    shown = capsys.readouterr().out
    assert "claim 2: contradicted here, inconclusive in HEAD" in shown and "moved, and no difference" in shown
    for lost in (findings[:1], [findings[0], {"claim": "2", "verdict": "not run"}]):
        write(project.findings, {"findings": lost})
        assert [each.what for each in verified(project).differences] == ["claim 2"]


def test_without_committed_results_one_line_says_so(project):
    subprocess.run(["git", "rm", "-rq", "--cached", "results"], cwd=project.root, check=True)
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    subprocess.run(["git", *who, "commit", "-qm", "none"], cwd=project.root, check=True)
    with pytest.raises(KdleakError, match=r"HEAD holds no results/metrics\.json; name a commit that holds results"):
        verified(project)
    assert verified(project, "HEAD~1").differences == ()
    project.metrics.unlink()
    with pytest.raises(KdleakError, match="no such file; run the stage that writes it"):
        verified(project, "HEAD~1")
