"""The tracer: records marked in every field go through audit and pipeline, with and without `--debug`: bases, teacher,
students, their audits, the report, and MLflow's own store. The mark stands nowhere outside data/, models/ and the
private folder .kdleak/: not in what is printed, not in results, reports, mlflow.db or mlartifacts/."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from kdleak.core.errors import KdleakError
from tests.support.private_marks import MARK, leaks, marked
from tests.support.small_project import CommandLine, change, small_project

SIZES = {"private": 12, "public": 12, "heldout": 12, "auxiliary": 6, "population": 6}


def write(path: Path, rows: list[dict]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = small_project(tmp_path_factory.mktemp("trace"))
    shutil.rmtree(made.results("kd"))  # of another student, and no stage's
    roles = [role for role, count in SIZES.items() for _ in range(count)]
    rows = [row | {"role": role} for row, role in zip(marked(48, 3), roles, strict=True)]
    content = yaml.safe_load(made.params.read_text())
    settings = {"data.source": "file", "data.path": "data/rows.jsonl", "data.roles": "column", "kd.method": "seqkd"}
    settings |= {"audit.mope.draws": 1, "audit.blocks.draws": 1, "audit.permutations": 20, "canaries.references": 20}
    settings |= {"study.methods": ["seqkd"], "teacher.epochs": 1, "memorization.tokens": 8}
    for key, value in settings.items():
        change(content, key, value)
    made.params.write_text(yaml.safe_dump(content, sort_keys=False))
    write(made.root / "data" / "rows.jsonl", rows)
    return made


#: Every stage of the pipeline, for one student beside the no-KD student, and what people run.
COMMANDS = """params, data, checks, canaries, base, teacher, distill sft, text seqkd, distill seqkd, measure base,
measure teacher, measure sft, measure seqkd, control, shadow, epsilon, judge teacher, judge sft, judge seqkd, summary,
report, sync, results, results --json, compare --csv"""


#: `make test` sends the records through the pipeline with `--debug`, which prints more than without.
@pytest.mark.parametrize("debug", [pytest.param((), marks=pytest.mark.faults), ("--debug",)])
def test_no_mark_leaves_the_pipeline(project, monkeypatch, capfd, debug):
    for variable in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(variable, raising=False)
    (project.root / ".dvc").mkdir(exist_ok=True)
    kdleak = CommandLine(monkeypatch, capfd)
    said: list[str] = []
    monkeypatch.setattr("kdleak.cli.main.say_error", said.append)
    for command in COMMANDS.replace("\n", " ").split(", "):
        code, printed = kdleak(project.root, *debug, *command.split())
        said.append(kdleak.printed + printed)
        assert code == 0, (command, said[-3:])
    monkeypatch.delenv("KDLEAK_DEBUG", raising=False)
    assert MARK not in "".join(said) and not leaks(project.root)
    assert (project.root / "mlflow.db").stat().st_size and list((project.root / "mlartifacts").rglob("roc.png"))
    assert all(path.stat().st_mode & 0o077 == 0 for path in (project.root / ".kdleak" / "cache").iterdir())


def test_the_tracer_finds_a_mark_where_there_is_one(tmp_path):
    for place in ("data", "results"):
        write(tmp_path / place / "rows.jsonl", marked(1, 1))
    assert leaks(tmp_path) == [str(tmp_path / "results" / "rows.jsonl")]


@pytest.mark.parametrize("debug", [(), ("--debug",)])
def test_no_mark_leaves_an_audit(project, tmp_path, monkeypatch, capfd, debug):
    kdleak = CommandLine(monkeypatch, capfd)
    lists = ["--members", write(tmp_path / "data/m.jsonl", marked(14, 5)), "--nonmembers"]
    lists.append(write(tmp_path / "data/n.jsonl", marked(14, 6)))
    model = str(project.root / "models" / "teacher")
    for more in ((), ("--cache", str(tmp_path / ".kdleak")), ("--members", lists[3]), ("--attacks", "los")):
        _, said = kdleak(tmp_path, *debug, "audit", "--student", model, *lists, "--drop-overlap", *more)
        assert MARK not in said
    monkeypatch.delenv("KDLEAK_DEBUG", raising=False)
    assert (tmp_path / "kdleak-audit" / "audit.json").is_file() and not leaks(tmp_path)
    assert (tmp_path / ".kdleak").stat().st_mode & 0o077 == 0


def test_what_is_printed_and_what_debug_would_print_are_searched(tried):
    def fail() -> None:
        raise KdleakError("a clear line") from KdleakError(MARK)

    tried("on standard output", lambda: print(MARK))
    tried("in the traceback alone", fail)
    tried("nowhere", lambda: print("nothing"))
    assert ["on standard output" in tried.broken[0], "in the traceback alone" in tried.broken[1]] == [True, True]
    assert len(tried.broken) == 2
