"""Long tests, run by `make faults`: a small disk runs full at every moment of a training, and of the real pipeline."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdleak.models.checkpoints import load_model
from kdleak.models.model_files import content_hash
from tests.robustness.test_faults import results, smoke_project
from tests.support.disk_faults import filled, small_disk
from tests.support.small_project import CommandLine, small_project

pytestmark = pytest.mark.faults

FULL = "no space is left on the disk; free some, then run the same command again"


@pytest.fixture
def kdleak(monkeypatch, capsys) -> CommandLine:
    return CommandLine(monkeypatch, capsys)


def sized(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_disk_that_runs_full_anywhere_in_a_training_leaves_a_whole_student(tmp_path, kdleak):
    with small_disk(tmp_path / "disk", "24m") as disk:
        project = small_project(disk)
        student = project.model("kd")
        assert kdleak(disk, "distill", "kd")[0] == 0
        undisturbed = content_hash(student)
        earlier = project.model("sft")
        refused = 0
        for free in (0, 4, 12, 40, 80, 120, 160, 200, 300, 1000):  # KiB
            shutil.rmtree(student, ignore_errors=True)
            shutil.copytree(earlier, student)
            shutil.rmtree(disk / ".kdleak", ignore_errors=True)
            before = sized(student)
            with filled(disk, 1024 * free):
                code, said = kdleak(disk, "distill", "kd")
            if code:
                refused += 1
                assert next(line for line in said.splitlines() if "error" in line).endswith(FULL), said
                assert "Traceback" not in said
                if "models/students/kd: " in said:
                    assert sized(student) == before
            assert content_hash(student) in (undisturbed, content_hash(earlier))
            load_model(student)
            assert not list(disk.rglob(".*.[0-9]*"))
            assert kdleak(disk, "distill", "kd")[0] == 0
            assert content_hash(student) == undisturbed
        assert 2 <= refused < 10


def test_outputs_on_a_read_only_disk_are_one_line(tmp_path, kdleak):
    with small_disk(tmp_path / "disk", "24m") as disk:
        small_project(disk)
        remount = ["mount", "-o", "remount,{}", str(disk)]
        subprocess.run([part.format("ro") for part in remount], check=True)
        for command, output in ((("params",), ".code"), (("text", "seqkd"), "data/text/seqkd.parquet")):
            code, said = kdleak(disk, *command)
            wanted = f"kdleak: error: {output}: the file system is read-only; make it writable, then run the same "
            assert code == 1 and said.splitlines()[-1] == f"{wanted}command again"
        subprocess.run([part.format("rw") for part in remount], check=True)
        assert kdleak(disk, "params")[0] == 0


#: The disk is filled so many seconds after one of these stages has begun.
STAGES = {"base": 4.0, "teacher": 5.0, "distill@kd": 5.0}


def test_a_pipeline_whose_disk_runs_full_again_and_again_ends_as_an_undisturbed_one(tmp_path):
    undisturbed = smoke_project(tmp_path / "undisturbed")
    assert undisturbed.dvc("repro").returncode == 0
    with small_disk(tmp_path / "disk", "300m") as disk:
        project = smoke_project(disk)
        failed = 0
        for stage, seconds in STAGES.items():
            failed += fill_during(project.folder, project.environment(), disk, stage, seconds)
        assert failed
        done = project.dvc("repro")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert results(project) == results(undisturbed)
        left = [p for top in ("data", "models", "results") for p in (project.folder / top).rglob(".*.[0-9]*")]
        assert not left


def fill_during(folder: Path, environment: dict[str, str], disk: Path, stage: str, seconds: float) -> bool:
    """`dvc repro` whose disk is full from some seconds after `stage` has begun on; whether it failed."""
    log = disk.parent / f"{stage}.log"  # on another disk
    with log.open("w") as out:
        command = [sys.executable, "-m", "dvc", "repro"]
        pipeline = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out)
    while pipeline.poll() is None and f"{stage}'" not in log.read_text():
        time.sleep(0.1)
    time.sleep(seconds)
    with filled(disk):
        pipeline.wait()
    said = log.read_text()
    assert "Traceback" not in said, said
    return pipeline.returncode != 0
