"""Two `dvc repro` at once: DVC's own lock refuses the second, which changes nothing (docs/security.md says so)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.robustness.test_faults import processes, smoke_project

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc"),
]
REPRO = ("repro", "data")  # and what comes before it: the lock is the same for every stage


def test_a_second_repro_beside_a_running_one_is_refused_and_harms_nothing(tmp_path):
    project = smoke_project(tmp_path)
    log = tmp_path / "first.log"
    with log.open("w") as out:
        command = [sys.executable, "-m", "dvc", *REPRO]
        first = subprocess.Popen(command, cwd=project.folder, env=project.environment(), stdout=out, stderr=out)
    try:
        held = working(project, first, log)
        os.kill(held, signal.SIGSTOP)  # it works for as long as the second one needs
        second = project.dvc(*REPRO)
        os.kill(held, signal.SIGCONT)
        said = second.stdout + second.stderr
        assert second.returncode == 255 and "is busy, it is being blocked by" in said and "(PID " in said, said
        assert f"(PID {first.pid})" in said and "Traceback" not in said
        assert first.wait(timeout=600) == 0, log.read_text()
    finally:
        first.kill()
        first.wait()
    kept = [project.folder / name for name in ("dvc.lock", "data/records.parquet", "data/splits.parquet")]
    before = [path.read_bytes() for path in kept]
    third = project.dvc(*REPRO)
    assert third.returncode == 0 and "Stage 'data' didn't change, skipping" in third.stdout, third.stdout
    assert [path.read_bytes() for path in kept] == before
    assert not processes(project)
    assert not [path for top in ("data", "models", "results") for path in (project.folder / top).rglob(".*.[0-9]*")]


def working(project, first: subprocess.Popen, log) -> int:
    """The process of the stage `data`, once it runs."""
    deadline = time.monotonic() + 600
    while first.poll() is None and time.monotonic() < deadline:
        for pid, words in processes(project).items():
            if words[-2:-1] == ["data"] and any(word.endswith("/kdleak") for word in words):
                return pid
        time.sleep(0.1)
    raise AssertionError(log.read_text())
