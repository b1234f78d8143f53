"""Long tests, run by `make faults`: the real pipeline is killed again and again, and ends as if it had not been."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from kdleak.tracking.content import AUDITS
from tests.support.pipeline_project import SMOKE, PipelineProject

pytestmark = pytest.mark.faults

#: Kinds of death, in turns: all at once (power, `docker kill`), the stage alone (out of memory), DVC alone, and Ctrl-C,
#: which a terminal sends to all of them.
VICTIMS = ("group", "stage", "dvc", "ctrl-c")
#: Random moments of at most this many seconds after a stage has begun.
LATEST = 8.0
#: How often each stage is killed, at most: a short one may end before its moment comes.
DEATHS = 3


def smoke_project(folder: Path) -> PipelineProject:
    """A project whose params.yaml holds the smoke parameters."""
    made = PipelineProject(folder)
    path = made.folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    for key, value in SMOKE.items():
        *sections, last = key.split(".")
        place = params
        for section in sections:
            place = place[section]
        place[last] = value
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    made.commit("smoke parameters")
    return made


def results(project: PipelineProject) -> dict[str, bytes]:
    """Every result file but Data Docs, whose pages hold the time of their making."""
    root = project.folder / "results"
    files = (p for p in sorted(root.rglob("*")) if p.is_file() and "docs" not in p.parts and p.name != ".gitignore")
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in files}


def mlflow_runs(project: PipelineProject) -> list[str]:
    with sqlite3.connect(project.folder / "mlflow.db") as store:
        query = "select name from runs where lifecycle_stage = 'active' and status = 'FINISHED' order by name"
        return [name for (name,) in store.execute(query)]


def processes(project: PipelineProject) -> dict[int, list[str]]:
    """pid -> command line of everything that works in the project's folder."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").resolve().is_relative_to(project.folder):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().decode().split("\0")
        except OSError:  # it has ended, or is another user's
            continue
    return {pid: command for pid, command in found.items() if any(command)}


def run_and_kill(project: PipelineProject, done: set[str], victim: str, rng: random.Random) -> str | None:
    """`dvc repro`, killed at a random moment of the first stage that is not in `done`; None where it ran to its end."""
    command = [sys.executable, "-m", "dvc", "repro"]
    log = project.folder.parent / "repro.log"
    with log.open("w") as out:
        pipeline = subprocess.Popen(
            command, cwd=project.folder, env=project.environment(), stdout=out, stderr=out, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job would ignore it
        )  # fmt: skip
    try:
        while pipeline.poll() is None:
            begun = [line.split("'")[1] for line in log.read_text().splitlines() if line.startswith("Running stage")]
            if begun and begun[-1] not in done:
                time.sleep(rng.uniform(0.1, LATEST))
                kill(pipeline, project, victim)
                return begun[-1]
            time.sleep(0.05)
        assert pipeline.returncode == 0, log.read_text()[-3000:]
        return None
    finally:
        pipeline.wait()


def kill(pipeline: subprocess.Popen, project: PipelineProject, victim: str) -> None:
    if victim in ("group", "ctrl-c"):
        os.killpg(pipeline.pid, signal.SIGKILL if victim == "group" else signal.SIGINT)
    elif victim == "dvc":
        pipeline.kill()
    else:
        for pid, command in processes(project).items():
            if any(word.endswith("kdleak") for word in command[:2]):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc")
def test_a_pipeline_killed_in_every_stage_ends_as_an_undisturbed_one(tmp_path):
    undisturbed = smoke_project(tmp_path / "undisturbed")
    assert undisturbed.dvc("repro").returncode == 0
    project = smoke_project(tmp_path / "killed")
    rng, killed = random.Random(0), Counter[str]()
    while True:
        done = {stage for stage, deaths in killed.items() if deaths == DEATHS}
        stage = run_and_kill(project, done, VICTIMS[killed.total() % len(VICTIMS)], rng)
        if stage is None:
            break
        killed[stage] += 1
        deadline = time.monotonic() + 10
        while (left := processes(project)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not left, f"killed in {stage}, and these live on: {left}"
    assert killed.total() >= 20 and len(killed) >= 10
    assert results(project) == results(undisturbed)
    left_over = [p for top in ("data", "models", "results") for p in (project.folder / top).rglob(".*[0-9]*")]
    assert not left_over
    assert project.kdleak("sync").returncode == 0 and undisturbed.kdleak("sync").returncode == 0
    assert mlflow_runs(project) == mlflow_runs(undisturbed)


def test_two_queue_workers_and_a_running_ui_share_one_store(tmp_path):
    project = smoke_project(tmp_path)
    assert project.dvc("repro").returncode == 0
    project.commit("the headline")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "ui", "--port", port, "--workers", "1"]
    ui = subprocess.Popen(
        command, cwd=project.folder, env=project.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        queued = project.dvc("exp", "run", "--queue", **{"kd.method": "rkl,seqkd"})
        assert queued.returncode == 0, queued.stderr
        assert project.dvc("queue", "start", "-j", "2").returncode == 0
        deadline = time.monotonic() + 900
        while "Running" in (status := project.dvc("queue", "status").stdout) or "Queued" in status:
            assert time.monotonic() < deadline, status
            time.sleep(3)
    finally:
        os.killpg(ui.pid, signal.SIGTERM)
        ui.wait()
    assert status.count("Success") == 2, status
    found = mlflow_runs(project)
    for method in ("rkl", "seqkd"):
        for name in (
            f"{method}, gpt2-smoke small, 60 members, seed 0",
            f"distill {method}",
            *(f"{audit} {method}" for audit in AUDITS),
        ):
            assert found.count(name) == 1
    shown = json.loads(project.dvc("exp", "show", "--json").stdout)
    methods = {
        revision["data"]["metrics"]["results/metrics.json"]["data"]["method"]
        for row in shown
        for experiment in row.get("experiments") or []
        for revision in experiment["revs"]
    }
    assert methods == {"rkl", "seqkd"}
