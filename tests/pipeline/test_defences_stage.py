"""The defences stage on a few dozen records: what it trains, what it keeps, what it makes anew."""

from __future__ import annotations

import shutil

import pytest

from kdleak.core.files import read_json
from kdleak.pipeline import defences
from kdleak.pipeline.defended import KEPT
from tests.support.frontier import audited_project, in_this_process, settings

POINTS = ["none-seed-0", "early_stop-epochs-1-seed-0", "top_k-k-2-seed-0"]


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    return audited_project(tmp_path_factory.mktemp("audited"))


@pytest.fixture
def project(audited, tmp_path):
    shutil.copytree(audited.root, tmp_path / "project")
    return type(audited)(tmp_path / "project")


@pytest.fixture
def made(monkeypatch):
    """The models that are made, in order."""
    calls = []

    def run(make, tasks, workers):
        for task, result in in_this_process(make, tasks, workers):
            calls.append((task[0].name, str(task[1])))
            yield task, result

    monkeypatch.setattr(defences, "run_tasks", run)
    return calls


def test_every_point_is_trained_with_its_defence_and_audited(project, made):
    defences.make_grid(settings(), project)
    students = [(name, "kd") for name in POINTS]
    assert made == [(POINTS[1], "teacher"), *students]  # top_k's students learn from the project's own teacher
    for name in POINTS:
        folder = project.defended / name / "kd"
        assert {f.name for f in folder.iterdir()} == {*KEPT, "origin.json"}
        assert set(read_json(folder / "membership.json")["attacks"]) == {"loss", "ez", "ref_no_kd"}
    assert not (project.root / ".kdleak" / "defences").exists()
