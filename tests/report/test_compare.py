"""Experiments side by side: what is pooled, what is kept apart, what is left out."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
import yaml
from rich.console import Console

from kdleak.core.errors import KdleakError
from kdleak.core.paths import Project
from kdleak.render.wording import number
from kdleak.report.compare import compared, print_comparison, print_tables, summarised, write_table
from kdleak.report.experiments import results_of
from tests.support.pipeline_project import ROOT


def write_result(folder: Path, method: str, auc: float) -> None:
    path = Project(folder).membership(method)
    path.parent.mkdir(parents=True, exist_ok=True)
    figures = {"auc": auc, "auc_ci95": [auc - 0.03, auc + 0.03]}
    path.write_text(json.dumps({"attacks": {"loss": figures, "zlib": {"auc": None, "auc_ci95": [None, None]}}}))


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def project(tmp_path) -> Project:
    """A repository with parameters and no results."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "start")
    return Project(tmp_path)


def experiment(project: Project, name: str, aucs: dict[str, float], **changes: object) -> None:
    """A commit under refs/exps, as DVC makes it of an experiment; the workspace is left as it was."""
    head = git(project.root, "rev-parse", "HEAD").strip()
    params = yaml.safe_load(project.params.read_text())
    for key, value in changes.items():
        section, _, last = key.partition("__")
        if last:
            params[section][last] = value
        else:
            params[section] = value
    project.params.write_text(yaml.safe_dump(params))
    for method, auc in aucs.items():
        write_result(project.root, method, auc)
    git(project.root, "add", "-A")
    git(project.root, "commit", "-qm", name)
    git(project.root, "update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{name}", "HEAD")
    git(project.root, "reset", "-q", "--hard", head)


def test_seeds_are_pooled_and_other_settings_kept_apart(project):
    for seed, auc in ((0, 0.7), (1, 0.8), (2, 0.9)):
        experiment(project, f"s{seed}", {"kd": auc}, seed=seed)
    experiment(project, "hot", {"kd": 0.95}, teacher={"lr": 0.004, "epochs": 6, "batch_size": 8})
    table = summarised(results_of(project)[0]).set_index("settings")
    assert sorted(table.index) == ["teacher.lr=0.002", "teacher.lr=0.004"]
    pooled, hot = table.loc["teacher.lr=0.002"], table.loc["teacher.lr=0.004"]
    assert (pooled["n_seeds"], pooled["seeds"], pooled["mean"]) == (3, "0,1,2", pytest.approx(0.8))
    assert pooled["sd"] == pytest.approx(0.1)
    # Student's t, two degrees of freedom: 4.303 * .1 / sqrt(3)
    assert pooled["high"] - pooled["mean"] == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-4)
    assert (hot["n_seeds"], hot["low"], hot["high"]) == (1, pytest.approx(0.92), pytest.approx(0.98))


def test_a_result_that_several_experiments_share_comes_once(project):
    experiment(project, "a", {"kd": 0.7, "sft": 0.5})
    experiment(project, "b", {"rkl": 0.6, "sft": 0.5})
    found, _ = results_of(project)
    assert [r.method for r in found].count("sft") == 1 and {r.method for r in found} == {"kd", "rkl", "sft"}


def test_a_baseline_is_not_told_apart_by_its_teachers_settings(project):
    experiment(project, "a", {"sft": 0.5, "kd": 0.7})
    experiment(project, "b", {"sft": 0.5, "kd": 0.8}, teacher={"lr": 0.004, "epochs": 6, "batch_size": 8})
    table = summarised(results_of(project)[0])
    assert list(table.loc[table["method"] == "sft", "settings"]) == [""]


def test_experiments_are_chosen_by_name_and_by_commit(project):
    experiment(project, "a", {"kd": 0.7})
    git(project.root, "commit", "-q", "--allow-empty", "-m", "on")
    experiment(project, "b", {"rkl": 0.6})
    assert {r.experiment for r in results_of(project)[0]} == {"b"}
    assert {r.experiment for r in results_of(project, all_commits=True)[0]} == {"a", "b"}
    assert {r.experiment for r in results_of(project, ["a"])[0]} == {"a"}
    with pytest.raises(KdleakError, match="'c' is no experiment"):
        results_of(project, ["c"])


def test_what_its_locks_call_outdated_is_left_out_and_counted(project):
    write_result(project.root, "kd", 0.7)
    write_result(project.root, "rkl", 0.6)
    outs = [{"path": "results/students/kd/membership.json", "md5": "0" * 32}]
    (project.root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"membership": {"cmd": "x", "outs": outs}}}))
    found, outdated = results_of(project)
    assert {r.method for r in found} == {"rkl"} and outdated == 1


def test_the_results_of_an_experiment_come_from_dvcs_cache(project):
    """git holds what the locks say of them; the bytes are DVC's. One that the cache lacks is counted."""
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=project.root, check=True)
    (project.root / ".gitignore").write_text("/results/\n")
    git(project.root, "add", "-A")
    git(project.root, "commit", "-qm", "dvc")
    for method, auc in (("kd", 0.7), ("rkl", 0.6)):
        write_result(project.root, method, auc)
    kept = Project(project.root).membership("kd").read_bytes()
    digest = hashlib.md5(kept).hexdigest()
    cached = project.root / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]
    cached.parent.mkdir(parents=True)
    cached.write_bytes(kept)
    outs = [
        {"path": "results/students/kd/membership.json", "md5": digest},
        {"path": "results/students/rkl/membership.json", "md5": "0" * 32},
    ]
    (project.root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"judge": {"cmd": "x", "outs": outs}}}))
    experiment(project, "a", {})
    shutil.rmtree(project.root / "results")
    found, away = results_of(project)
    assert [(r.experiment, r.method, r.value) for r in found] == [("a", "kd", 0.7)] and away == 1


def test_tables_are_printed_for_people_and_written_for_programs_where_asked(project, capsys, tmp_path):
    write_result(project.root, "kd", 0.7)
    write_result(project.root, "teacher", 0.9)
    before = sorted(project.root.rglob("*"))
    comparison = compared(project)
    print_comparison(comparison)
    shown = capsys.readouterr().out
    assert "teacher" in shown and ".700" in shown and "student small" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert sorted(project.root.rglob("*")) == before
    for name in ("out.csv", "out.md"):
        write_table(comparison.table, tmp_path / name)
    table = pd.read_csv(tmp_path / "out.csv")
    assert list(table["method"]) == ["teacher", "kd"] and list(table["mean"]) == [0.9, 0.7]
    assert "| kd | auc loss | .700 [.670, .730] | – | 0 |" in (tmp_path / "out.md").read_text()
    with pytest.raises(KdleakError, match=r"--out out\.xls: a table is written as CSV or Markdown; name it FILE\.csv"):
        write_table(comparison.table, tmp_path / "out.xls")


@pytest.mark.parametrize("width", [30, 40, 63, 64, 200])
def test_a_narrow_terminal_shows_every_figure_whole(width):
    measures = ["memorization gap", "auc loss", "auc mink_published", "auc ez", "perplexity"]
    keys = {"family": "gpt2-tiny", "size": "small", "protocol": "corrected", "settings": ""}
    rows = [
        {**keys, "method": method, "measure": measure, "mean": (10 * i + k) / 1000, "sd": math.nan}
        for i, method in enumerate(["teacher", "distillm"])
        for k, measure in enumerate(measures)
        if (method, measure) != ("teacher", "auc ez")
    ]
    out = StringIO()
    print_tables(pd.DataFrame(rows), Console(width=width, file=out))
    shown = out.getvalue()
    assert "…" not in shown and max(map(len, shown.splitlines())) <= width
    for row in rows:
        assert shown.count(f" {number(row['mean'])} ") == 1
    places = [shown.index(word) for word in ("loss", "mink_published", " ez", "gap", "perplexity")]
    assert places == sorted(places)  # attacks first


def test_without_results_or_git_one_line_says_so(tmp_path, project):
    with pytest.raises(KdleakError, match="no experiment and no results; run 'dvc repro'"):
        compared(project)
    bare = tmp_path / "bare"
    bare.mkdir()
    with pytest.raises(KdleakError, match="nothing to compare"):
        compared(Project(bare))
