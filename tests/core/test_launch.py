"""The command line in two processes: started by kdleak itself, and by torchrun."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from kdleak.core import launch
from kdleak.core.files import read_json, write_parquet
from kdleak.core.paths import Project
from kdleak.core.times import span_of
from kdleak.pipeline.distill import make_student
from kdleak.pipeline.text import write_training_text
from tests.support.distillation import corpus, params, untrained
from tests.support.pipeline_project import ROOT

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    made = untrained(tmp_path_factory.mktemp("project"))
    write_parquet(corpus()[["record_id", "role", "task", "group_id"]], made.splits)
    shutil.copy(ROOT / "families.yaml", made.families)
    made.params.write_text(yaml.safe_dump(params(**{"compute.processes": 2}).model_dump(mode="json")))
    return made


def run(project: Project, *command: str | Path) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_TRACKING"))}
    return subprocess.run(
        list(map(str, command)), cwd=project.root, env=environment, capture_output=True, text=True, timeout=300
    )


def test_a_parameter_starts_a_stage_in_two_processes_and_one_of_them_reports(project):
    make_student("sft", params(), project)
    alone, training = read_json(project.training("sft")), project.training("sft")
    training.unlink()
    ran = run(project, sys.executable, "-m", "kdleak", "distill", "sft")
    assert ran.returncode == 0, ran.stderr
    for one, two in zip(alone["history"], read_json(training)["history"], strict=True):
        assert two["tokens"] == one["tokens"] and two["loss"] == pytest.approx(one["loss"], rel=0.05)
    assert span_of(project, "distill", "sft") is not None
    assert not project.resume("sft").exists()


def test_torchrun_starts_a_stage_too(project):
    write_training_text("seqkd", params(), project)
    alone = pd.read_parquet(project.training_text("seqkd"))
    project.training_text("seqkd").unlink()
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    ran = run(project, sys.executable, *torchrun, "-m", "kdleak", "text", "seqkd")
    assert ran.returncode == 0, ran.stderr
    pd.testing.assert_frame_equal(pd.read_parquet(project.training_text("seqkd")), alone)


def test_an_error_of_both_is_said_once_in_one_line(project):
    ran = run(project, sys.executable, "-m", "kdleak", "text", "seqqd")
    assert ran.returncode == 1 and ran.stdout == ""
    assert ran.stderr == "kdleak: error: no method 'seqqd'; did you mean 'seqkd'?\n"


def test_when_one_process_is_killed_the_others_end_and_it_is_said(monkeypatch, capfd):
    started = []

    def start(rank: int, processes: int, folder: Path) -> subprocess.Popen:
        code = "import os, time; os.kill(os.getpid(), 9)" if rank == 1 else "import time; time.sleep(100)"
        started.append(subprocess.Popen([sys.executable, "-S", "-c", code]))
        return started[-1]

    monkeypatch.setattr(launch, "_start", start)
    monkeypatch.setattr(launch, "_GRACE", 0.1)
    begun = time.monotonic()
    assert launch.launch(3) == 1 and time.monotonic() - begun < 20
    assert "process 1 of 3 was ended by signal 9" in capfd.readouterr().err
    assert all(worker.poll() is not None for worker in started)


def test_of_a_killed_process_it_is_said_that_it_was_killed_whatever_the_others_say_of_it(monkeypatch, capfd):
    def start(rank: int, processes: int, folder: Path) -> subprocess.Popen:
        (folder / "error.0").write_text("kdleak: error: another process of this run has ended")
        code = "import sys; sys.exit(1)" if rank == 0 else "import os, time; time.sleep(0.5); os.kill(os.getpid(), 9)"
        return subprocess.Popen([sys.executable, "-S", "-c", code])

    monkeypatch.setattr(launch, "_start", start)
    assert launch.launch(2) == 1
    assert "process 1 of 2 was ended by signal 9" in capfd.readouterr().err


def test_all_that_end_well_end_well(monkeypatch):
    monkeypatch.setattr(launch, "_start", lambda *_: subprocess.Popen([sys.executable, "-S", "-c", ""]))
    assert launch.launch(2) == 0
