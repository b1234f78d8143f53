"""Result files, tables and locks that no stage wrote so: every command that reads them refuses in one line that names
the file, or handles them. The inputs are those of hostile/results.yaml."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from kdleak.core.files import write_csv, write_json, write_parquet
from kdleak.core.paths import Project
from kdleak.report.headline import write_headline
from tests.support.hostile_inputs import TABLES, Tried, bomb, chosen
from tests.support.pipeline_project import ROOT
from tests.support.study_results import StudyResults, params_of

TABLE = TABLES["results"]


class _Store:
    """In place of MLflow's: it takes all that a run would log."""

    def __init__(self, *_: object) -> None: ...

    def add(self, runs: Any) -> int:
        return len([run.content for run in runs.stages])


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """The results of a teacher and two students, whole, as a clone of a repository would hold them."""
    folder = tmp_path_factory.mktemp("results")
    made = StudyResults(folder, 20, {"teacher": 2.0, "sft": 0.0, "kd": 1.0}).project
    params = params_of(study__methods=["kd"], audit__attacks=["loss", "zlib", "ez"])
    made.params.write_text(yaml.safe_dump(params.model_dump(mode="json")))
    shutil.copy(ROOT / "families.yaml", folder)
    curve = pd.DataFrame({"attack": "loss", "fpr": [0.0, 0.1, 1.0], "tpr": [0.0, 0.5, 1.0]})
    for name in ("teacher", "sft", "kd"):
        write_csv(curve, made.roc(name))
    roles = ["private", "heldout", "public", "auxiliary", "population"]
    write_parquet(pd.DataFrame({"record_id": list("abcde"), "role": roles, "task": "x", "group_id": "g"}), made.splits)
    write_json({"success": True, "expectations": [], "findings": {}}, made.checks)
    write_headline(params, made)
    return made


@pytest.fixture
def read(tried, project, monkeypatch) -> Iterator[Callable[[object], None]]:
    """Every command reads the project as it is."""
    monkeypatch.chdir(project.root)
    monkeypatch.setattr("kdleak.tracking.mlflow.open_store", lambda _: contextlib.nullcontext(()))
    monkeypatch.setattr("kdleak.tracking.mlflow._Store", _Store)
    monkeypatch.setattr("kdleak.tracking.mlflow.log_results", lambda *_, **__: None)
    for room in ("charts", "roc"):  # the figures are made, and not drawn
        monkeypatch.setattr(f"kdleak.render.{room}.drawing", lambda *_, **__: '<svg width="1pt"></svg>')
    inputs = itertools.count()

    def with_every_command(name: object) -> None:
        slow = TABLE["slow"] if next(inputs) % 3 == 0 else []
        for command in [*TABLE["commands"], *slow]:
            tried(name, argv=["kdleak", *command])

    yield with_every_command
    tried.done()


@contextlib.contextmanager
def damaged(path: Path, write: Callable[[Path], object]) -> Iterator[None]:
    """`path` as `write` leaves it, within the block."""
    kept = path.with_name(path.name + ".kept")
    if path.exists():
        path.rename(kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path)
    try:
        yield
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if kept.exists():
            kept.rename(path)


def test_sound_results_are_read_by_every_command(read, tried: Tried):
    read("sound")
    assert not tried.refused


def test_whole_files(read, project):
    contents = [*TABLE["contents"], *map(bomb, TABLE["built"])]
    for name, content in chosen([*itertools.product(TABLE["files"], contents)]):
        with damaged(project.root / name, lambda path, content=content: path.write_text(content)):
            read((name, content[:60]))


def test_keys(read, project):
    pairs = [(file, key) for file, keys in TABLE["keys"].items() for key in keys]
    for (name, key), value in chosen([*itertools.product(pairs, TABLE["values"])]):
        content = json.loads((project.root / name).read_text())
        *above, last = key.split(".")
        place = content
        for part in above:
            place = place[part]
        place[last] = value
        with damaged(project.root / name, lambda path, content=content: path.write_text(json.dumps(content))):
            read((name, key, value))


def test_tables_and_locks(read, project):
    for entry in chosen(TABLE["tables"]):
        with damaged(project.root / entry["file"], lambda path, entry=entry: _write(path, entry, project)):
            read(entry)


def _write(path: Path, entry: dict[str, Any], project: Project) -> None:
    if "text" in entry:
        metrics = hashlib.md5(project.metrics.read_bytes(), usedforsecurity=False).hexdigest()
        path.write_text(entry["text"].replace("METRICS", metrics))
    elif "bytes" in entry:
        path.write_bytes(bytes.fromhex(entry["bytes"]))
    elif "columns" in entry:
        pd.DataFrame(entry["columns"]).to_parquet(path)
    elif "cut" in entry:
        path.write_bytes(path.with_name(path.name + ".kept").read_bytes()[: entry["cut"]])
    elif entry.get("folder"):
        path.mkdir()
    elif entry.get("pipe"):
        os.mkfifo(path)
