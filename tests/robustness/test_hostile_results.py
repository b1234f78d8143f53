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

import numpy as np
import pandas as pd
import pytest
import yaml

from kdleak.core.files import write_csv, write_json, write_parquet
from kdleak.core.paths import Project
from kdleak.report.headline import write_headline
from kdleak.shadow.report import settings_of, shadow_report
from tests.report.test_epsilon_section import audit
from tests.shadow.test_transfer import simulated
from tests.support.frontier import compared_defences
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
    write_json({"audits": {"none": audit(3.0)}}, made.epsilon_report, digits=6)
    write_json(compared_defences(), made.frontier)
    student, teacher, inside = simulated(0, pairs=4, n=80)
    scores = {
        name: {"loss": each, "ez": 1 / (1 + np.exp(-each))} for name, each in (("teacher", teacher), ("kd", student))
    }
    write_json(settings_of(params) | shadow_report(scores, inside), made.shadow_report, digits=6)
    return made


@pytest.fixture
def read(tried, project, monkeypatch) -> Iterator[Callable[..., None]]:
    """Every command of a table reads the project as it is."""
    monkeypatch.chdir(project.root)
    monkeypatch.setattr("kdleak.tracking.mlflow.open_store", lambda _: contextlib.nullcontext(()))
    monkeypatch.setattr("kdleak.tracking.mlflow._Store", _Store)
    monkeypatch.setattr("kdleak.tracking.mlflow.log_results", lambda *_, **__: None)
    for room in ("charts", "frontier", "roc"):  # the figures are made, and not drawn
        monkeypatch.setattr(f"kdleak.render.{room}.drawing", lambda *_, **__: '<svg width="1pt"></svg>')
    inputs = itertools.count()

    def with_commands(name: object, table: dict[str, Any] = TABLE) -> None:
        for command in [*table["commands"], *(table["slow"] if next(inputs) % 3 == 0 else [])]:
            tried(name, argv=["kdleak", *command])

    yield with_commands
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
    every = {key: TABLE[key] + TABLE["optional"][key] for key in ("commands", "slow")}
    read("sound", every)
    assert not tried.refused


def test_whole_files(read, project):
    contents = [*TABLE["contents"], *map(bomb, TABLE["built"])]
    for name, content in chosen([*itertools.product(TABLE["files"], contents)]):
        with damaged(project.root / name, lambda path, content=content: path.write_text(content)):
            read((name, content[:60]))


def test_keys(read, project):
    pairs = [(file, key) for file, keys in TABLE["keys"].items() for key in keys]
    for (name, key), value in chosen([*itertools.product(pairs, TABLE["values"])]):
        content = _changed(project.root / name, key, value)
        with damaged(project.root / name, lambda path, content=content: path.write_text(content)):
            read((name, key, value))


def _changed(path: Path, key: str, value: object) -> str:
    """The JSON file `path` with the dotted `key` set; a number in it counts in a list."""
    content = json.loads(path.read_text())
    place = content
    *above, last = (int(part) if part.isdigit() else part for part in key.split("."))
    for part in above:
        place = place[part]
    place[last] = value
    return json.dumps(content)


def test_optional_stages(read, project):
    table = TABLE["optional"]
    contents = [*TABLE["contents"], *map(bomb, TABLE["built"])]
    changes = [(name, content, None) for name in table["keys"] for content in contents]
    keys = [(name, key) for name, keys in table["keys"].items() for key in keys]
    changes += [(name, key, [value]) for (name, key), value in itertools.product(keys, TABLE["values"])]
    for name, what, value in chosen(changes):
        content = what if value is None else _changed(project.root / name, what, value[0])
        with damaged(project.root / name, lambda path, content=content: path.write_text(content)):
            read((name, what[:60], value), table)


def test_tables_and_locks(read, project):
    metrics = hashlib.md5(project.metrics.read_bytes(), usedforsecurity=False).hexdigest()
    for entry in chosen(TABLE["tables"]):
        path = project.root / entry["file"]
        before = path.read_bytes() if path.is_file() else b""
        with damaged(path, lambda path, entry=entry, before=before: damage(path, entry, before, metrics)):
            read(entry)


def damage(path: Path, entry: dict[str, Any], before: bytes, metrics: str = "") -> None:
    """Write what `entry` of a table says to `path`, which is not there. before: what was; metrics: md5 of metrics.json,
    where it stands in a lock."""
    if "text" in entry:
        path.write_text(entry["text"].replace("METRICS", metrics))
    elif "bytes" in entry:
        path.write_bytes(bytes.fromhex(entry["bytes"]))
    elif "columns" in entry:
        pd.DataFrame(entry["columns"]).to_parquet(path)
    elif "cut" in entry:
        path.write_bytes(before[: entry["cut"]])
    elif entry.get("folder"):
        path.mkdir()
    elif entry.get("pipe"):
        os.mkfifo(path)
