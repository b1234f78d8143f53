"""`dvc repro` on a finished pipeline, a file of which is damaged (hostile/repro.yaml): it mends it, or refuses."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.robustness.test_faults import results
from tests.robustness.test_hostile_results import damage
from tests.support.forks import ended, fork
from tests.support.hostile_inputs import COUNTS, TABLES, chosen
from tests.support.pipeline_project import PipelineProject

pytestmark = [pytest.mark.faults, pytest.mark.skipif(not hasattr(os, "fork"), reason="forks `dvc` for each input")]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> PipelineProject:
    made = PipelineProject(tmp_path_factory.mktemp("repro"), forked=True)
    done = made.experiment()
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return made


def repro(project: PipelineProject) -> tuple[int, str]:
    """(exit code, what it said) of `dvc repro` in a fork of this process, which has imported DVC."""
    from dvc.cli import main

    environment = project.environment()
    with tempfile.TemporaryFile() as said:

        def command() -> None:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            os.chdir(project.folder)
            os.environ.clear()
            os.environ.update(environment)
            os._exit(main(["repro"]))

        code = ended(fork(command))
        said.seek(0)
        return code, said.read().decode(errors="replace")


def test_repro(project):
    before, broken, refusals = results(project), [], 0
    inputs = chosen(TABLES["repro"]["inputs"])
    for entry in inputs:
        path, refused = project.folder / entry["file"], entry.get("refused", False)
        was = path.read_bytes()
        path.unlink()
        damage(path, entry, was)
        code, said = repro(project)
        mended = not refused and path.is_file() and path.read_bytes() == was and results(project) == before
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.write_bytes(was)
        if "Traceback" in said or "unforeseen" in said or (code == 0) == refused or not (refused or mended):
            broken.append(f"{entry} -> {code}, {mended}: {said[-600:]}")
        if refused and entry.get("says", Path(entry["file"]).name) not in said:
            broken.append(f"{entry} is not named: {said[-600:]}")
        refusals += refused
    COUNTS["repro"] = (len(inputs), refusals, len(inputs) - refusals)
    assert not broken, "\n".join(broken)
    code, said = repro(project)
    assert code == 0 and results(project) == before, said
