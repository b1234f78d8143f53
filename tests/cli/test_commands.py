"""The terminal: help, version, the project's root, names, tables for people and for programs."""

from __future__ import annotations

import json
import shutil
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import kdleak
from kdleak.cli import project
from kdleak.cli.main import app
from kdleak.core.errors import KdleakError
from kdleak.core.files import write_json
from tests.support.pipeline_project import ROOT
from tests.support.small_project import CommandLine, refusal
from tests.support.study_results import STRENGTHS, StudyResults

WIDE = {"COLUMNS": "200", "TERM": "dumb"}


def run(*arguments: str, **environment: str) -> str:
    done = CliRunner().invoke(app, list(arguments), env=WIDE | environment)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Parameters, families and results of teacher, no-KD student and KD (without locks: results count as made with
    these parameters)."""
    made = StudyResults(tmp_path_factory.mktemp("study"), strengths={n: STRENGTHS[n] for n in ("teacher", "sft", "kd")})
    for name in ("params.yaml", "families.yaml"):
        shutil.copy(ROOT / name, made.project.root)
    write_json({"method": "kd"}, made.project.metrics)
    return made.project.root


@pytest.fixture
def studied(results, tmp_path, monkeypatch) -> Path:
    """A copy of them; the working folder is deep in it."""
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    deep = tmp_path / "notes" / "may"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    return tmp_path


def test_help_is_parted_into_the_users_commands_and_the_pipelines():
    shown = run("-h")
    yours, stages = shown.split("Your models and results")[1].split("The pipeline's stages")
    assert all(name in yours for name in ("audit", "results", "compare", "sync", "family"))
    assert all(name in stages for name in ("params", "teacher", "distill", "measure", "judge", "report"))
    assert "--install-completion" in shown


def test_help_keeps_the_brackets_of_a_revision():
    assert "a hub id[@revision]" in run("audit", "-h")


def test_one_version_number():
    assert run("--version").strip() == f"kdleak {kdleak.__version__}"
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()


def test_the_root_is_found_from_a_folder_in_it(studied):
    assert run("family", "gpt2", "base").startswith("-S model.family=gpt2 ")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("measure", "teachr"), "no method 'teachr'; did you mean 'teacher'?"),
        (("judge", "base"), "no method 'base'; valid: "),
        (("distill", "mimillm"), "no method 'mimillm'; did you mean 'minillm'?"),
        (("text", "teacher"), "no method 'teacher'; valid: "),
    ],
)
def test_a_mistyped_name_is_met_with_the_nearest(studied, monkeypatch, capsys, command, said):
    assert refusal(CommandLine(monkeypatch, capsys), studied, *command).startswith(said)


def test_without_the_pipelines_packages_one_line_says_what_to_install(studied, monkeypatch, capsys):
    monkeypatch.setattr(project, "find_spec", lambda name: None if name == "mlflow" else object())
    said = refusal(CommandLine(monkeypatch, capsys), studied, "results")
    assert said == "this command needs mlflow; pip install 'kdleak[pipeline]'"


@pytest.mark.parametrize("command", ["results", "compare"])
def test_figures_are_readable_in_a_pipe_of_80_columns_and_change_no_file(studied, command):
    before = sorted(studied.rglob("*"))
    shown = run(command, COLUMNS="80")
    assert max(map(len, shown.splitlines())) <= 80 and "…" not in shown
    assert "loss" in shown and "perplexity" in shown
    assert sorted(studied.rglob("*")) == before


@pytest.mark.parametrize("command", ["results", "compare"])
def test_figures_as_json_and_csv_are_one_table(studied, command):
    rows, table = json.loads(run(command, "--json")), pd.read_csv(StringIO(run(command, "--csv")))
    assert len(rows) == len(table) and list(rows[0]) == list(table.columns)
    report = json.loads((studied / "results" / "students" / "kd" / "membership.json").read_text())
    figure = next(row for row in rows if row["method"] == "kd" and row["measure"] == "auc loss")
    assert figure["value" if command == "results" else "mean"] == report["attacks"]["loss"]["auc"]
    assert [figure["low"], figure["high"]] == report["attacks"]["loss"]["auc_ci95"]


def test_a_comparison_is_written_only_where_it_is_asked_for_and_counts_from_the_users_folder(studied):
    run("compare", "--out", "table.md")
    assert (studied / "notes" / "may" / "table.md").is_file()


def test_a_missing_project_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KdleakError, match=r"params\.yaml: no such file; run kdleak in the project's root"):
        app(["results"], standalone_mode=False)


@pytest.mark.parametrize("card", ["cards", "out/audit.json"])
def test_a_model_card_is_a_file_of_its_own(tmp_path, monkeypatch, capsys, card):
    (tmp_path / "cards").mkdir()
    lists = ("--student", "absent", "--members", "m.jsonl", "--nonmembers", "n.jsonl", "--out", "out")
    said = refusal(CommandLine(monkeypatch, capsys), tmp_path, "audit", *lists, "--model-card", card)
    assert said.endswith("no file, or one of the audit's own; name it card.md, say")
