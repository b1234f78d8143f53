"""What every command of a project begins with."""

from __future__ import annotations

import pytest

from kdleak.cli import project
from kdleak.core import launch
from tests.support.distillation import params


@pytest.fixture
def launched(monkeypatch, tmp_path):
    """How many processes a command would be run in, in a project with one model of so many bytes."""

    def ask(measuring: bool, size: int = 100, **compute: object) -> int:
        started: list[int] = []
        settings = params(**{f"compute.{name}": value for name, value in compute.items()})
        (tmp_path / "models/teacher").mkdir(parents=True, exist_ok=True)
        with (tmp_path / "models/teacher/model.safetensors").open("wb") as file:
            file.truncate(size)
        monkeypatch.setattr(project, "read_settings", lambda: settings)
        monkeypatch.setattr(launch, "launch", lambda processes: started.append(processes) or 0)
        try:
            project.shared_settings(measuring)
        except SystemExit as ended:
            assert ended.code == 0
        return started[0] if started else 1

    monkeypatch.setattr(project, "PROJECT", project.Project(tmp_path))
    monkeypatch.setattr(launch, "cores", lambda: 3)
    monkeypatch.setenv("KDLEAK_DEVICE", "cpu")  # set by the command, restored after the test
    return ask


def test_measuring_takes_a_process_a_core_where_models_are_small_and_on_the_cpu(launched, monkeypatch):
    assert launched(measuring=True, measure_processes=0) == 3
    assert launched(measuring=False, measure_processes=0) == 1
    assert launched(measuring=True, measure_processes=0, processes=8) == 8
    assert launched(measuring=True, measure_processes=0, device="cuda") == 1
    assert launched(measuring=True, measure_processes=0, size=2**26 + 1) == 1
    assert launched(measuring=True, measure_processes=2, size=2**26 + 1) == 2
    monkeypatch.setattr(launch, "cores", lambda: 64)
    assert launched(measuring=True, measure_processes=0) == 4


def test_a_process_that_was_started_starts_no_other(launched, monkeypatch):
    monkeypatch.setattr(project, "size", lambda: 2)
    assert launched(measuring=True, measure_processes=0) == 1
