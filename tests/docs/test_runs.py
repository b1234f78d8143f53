"""docs/runs.md says what the files in results/runs/ say, and they hold what `kdleak results --json` prints."""

from __future__ import annotations

import json
import runpy

import pandas as pd
import pytest

from kdleak.pipeline.provenance import Provenance
from kdleak.report.results_table import results_table
from tests.support.pipeline_project import ROOT
from tests.support.study_results import STRENGTHS, StudyResults, params_of

MAKE = runpy.run_path(str(ROOT / "docs" / "make_runs.py"))


def test_the_tables_are_those_of_the_files():
    text = MAKE["PAGE"].read_text(encoding="utf-8")
    assert MAKE["filled"](text) == text, "results/runs has changed: run 'make readme'"
    assert all(f"<!-- {part} -->" in text for part in MAKE["PARTS"])


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> list[dict]:
    """What `kdleak results --json` prints of a study with runs beside the default ones."""
    made = StudyResults(tmp_path_factory.mktemp("study"))
    params = params_of(study__grids=["paper"], study__seeds=[1])
    for run in params.study.variants:
        if run.method in ("kd", "distillm"):
            made.trial(run, 0.5, 33.3)
    made.project.metrics.write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Provenance, "outdated", lambda *_: None)
        return json.loads(results_table(params, made.project).to_json(orient="records"))


def test_a_file_keeps_the_figures_of_every_model_and_run(rows, tmp_path, monkeypatch):
    models = MAKE["kept"](rows)
    beside = {f"{method} {run}" for method in ("kd", "distillm") for run in ("grid-paper", "seed-1")}
    assert set(models) == {*STRENGTHS, *beside}
    for name, figures in models.items():
        assert {"auc loss", "auc ez", MAKE["BEST"], "perplexity", "student-written"} <= set(figures), name
        assert figures["auc loss"]["low"] <= figures["auc loss"]["value"] <= figures["auc loss"]["high"]
    best = max(
        (r for r in rows if r["measure"] == MAKE["BEST"] and r["method"] == "kd" and not r["run"]),
        key=lambda r: r["value"],
    )
    assert models["kd"][MAKE["BEST"]]["attack"] == best["attack"]
    for each in (MAKE["write_run"], MAKE["every_run"], MAKE["both_grids"]):
        monkeypatch.setitem(each.__globals__, "FOLDER", tmp_path)
    assert MAKE["both_grids"]() == MAKE["NONE"] == MAKE["every_run"]()
    for name in ("controlled", "paper"):
        MAKE["write_run"](name, f"The {name} grid", "dvc repro -P", rows)
    assert (tmp_path / "paper.json").stat().st_size < 20_000
    shown = MAKE["every_run"]()
    assert shown.count("### The ") == 2 and "```bash\ndvc repro -P\n```" in shown
    lines = [line for line in shown.split("### The paper")[1].splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + len(models) and "KD, `grid-paper`" in shown
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| teacher", "| no-KD student"]
    assert "| 33.3 |" in shown and "50.0 %" in shown and f"(`{best['attack']}`)" in shown
    both = MAKE["both_grids"]().splitlines()
    assert len(both) == 2 + len(STRENGTHS) and both[0].count("controlled") == both[0].count("paper") == 2


def test_the_study_of_a_pretrained_model_has_a_table_of_its_own(rows, tmp_path, monkeypatch):
    for each in (MAKE["write_run"], MAKE["every_run"], MAKE["real_runs"]):
        monkeypatch.setitem(each.__globals__, "FOLDER", tmp_path)
    assert MAKE["real_runs"]() == MAKE["NONE"]
    MAKE["write_run"]("real-same", "A student of the same size", "make real", rows)
    assert MAKE["every_run"]() == MAKE["NONE"]
    lines = [line for line in MAKE["real_runs"]().splitlines() if line.startswith("| ")]
    assert lines[0].startswith("| model | `loss` | `ez` | `ref_pretrained` | `wbc` | memorization gap | copied")
    found = {r["measure"]: r for r in rows if r["method"] == "kd" and not r["run"]}
    shown = next(line for line in lines if line.startswith("| KD |"))
    assert f"{found['auc loss']['value']:.3f}".lstrip("0") in shown
    assert f"{found['memorization gap']['value']:.3f}".lstrip("0") in shown


def test_a_changed_figure_changes_the_table(rows):
    table = MAKE["models_table"](MAKE["kept"](rows))
    changed = [dict(r, value=0.123) if r["measure"] == "auc ez" and r["method"] == "kd" else r for r in rows]
    assert MAKE["models_table"](MAKE["kept"](changed)) != table


def test_the_table_of_results_names_run_and_attack(rows):
    table = pd.DataFrame(rows)
    assert list(table.columns) == ["model", "method", "run", "measure", "attack", "value", "low", "high"]
    assert set(table["model"]) == {"teacher", "student", "no_kd", "technique", "run"}
    assert set(table.loc[table["run"] != "", "run"]) == {"grid-paper", "seed-1"}
    assert not table.duplicated(["model", "method", "run", "measure"]).any()
