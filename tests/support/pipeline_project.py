"""A project folder of its own for tests of the real pipeline: committed to git, driven through DVC, `smoke` sizes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from kdleak.distill.methods import METHODS
from tests.support.stage_server import CLIENT, WATCHED, address

ROOT = Path(__file__).resolve().parents[2]
#: Parameters that make the whole pipeline a matter of seconds. Reached by `-S` alone.
SMOKE = {
    "model.family": "gpt2-smoke",
    "compute.measure_processes": 1,
    "data.rows": 420,
    "data.sizes.private": 60,
    "data.sizes.public": 60,
    "data.sizes.heldout": 60,
    "data.sizes.auxiliary": 100,
    "data.sizes.population": 20,
    "canaries.each": 2,
    "canaries.references": 30,
    "base.epochs": 1,
    "teacher.epochs": 2,
    "generation.max_new_tokens": 24,
    "audit.mope.draws": 1,
    "audit.blocks.draws": 2,
    "audit.permutations": 100,
} | {f"kd.recipes.{method}.epochs": 1 for method in METHODS}


class PipelineProject:
    """A temporary copy of the project, with git and DVC as a user would have them.

    forked: its `kdleak` is a fork of a process that has imported the libraries (`tests.support.stage_server`), for
    tests that end no process and set no variable that a library reads as it is imported.
    shown: what a run has printed, for tests to keep. sockets: a line for every socket that a process has bound.
    stages: a file for every process of a stage, what it has read.
    """

    shown = ""

    def __init__(self, folder: Path, forked: bool = False):
        self._forked = {"STAGE_SERVER": address()} if forked else {}
        self.folder = folder / "project"
        self.home = folder / "home"
        self.sockets = folder / "sockets.log"
        self.stages = folder / "stages"
        self.stages.mkdir(parents=True)
        self.home.mkdir(parents=True)
        listed = self._git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout
        for name in filter(None, listed.split("\0")):
            # Locks and results of the working copy would only say that everything is there already.
            if (ROOT / name).is_file() and not name.endswith("dvc.lock") and not name.startswith("results/"):
                target = self.folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target)
        self._git(self.folder, "init", "-q", "-b", "main")
        self.commit("start")

    def commit(self, message: str) -> None:
        self._git(self.folder, "add", "-A")
        self._git(self.folder, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", message)

    def dvc(self, *arguments: str, **settings: object) -> subprocess.CompletedProcess:
        """Run `dvc arguments -S key=value…`."""
        overrides = [part for key, value in settings.items() for part in ("-S", f"{key}={value}")]
        return self.run(sys.executable, "-m", "dvc", *arguments, *overrides)

    def experiment(self, **settings: object) -> subprocess.CompletedProcess:
        """`dvc exp run` with the smoke parameters and `settings`."""
        return self.dvc("exp", "run", **{**SMOKE, **settings})

    def kdleak(self, *arguments: str) -> subprocess.CompletedProcess:
        return self.run("kdleak", *arguments)

    def run(self, *command: str) -> subprocess.CompletedProcess:
        return subprocess.run(command, cwd=self.folder, env=self.environment(), capture_output=True, text=True)

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_", "KDLEAK_"))}
        clients = [str(CLIENT)] if self._forked else []
        return (
            kept
            | self._forked
            | {
                "HOME": str(self.home),
                "PATH": os.pathsep.join([*clients, str(Path(sys.executable).parent), os.environ["PATH"]]),
                "PYTHONPATH": os.pathsep.join(filter(None, [str(WATCHED), os.environ.get("PYTHONPATH")])),
                "COLUMNS": "120",
                "WATCHED_SOCKETS": str(self.sockets),
                "WATCHED_STAGES": str(self.stages),
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "GX_ANALYTICS_ENABLED": "false",
                "GIT_AUTHOR_NAME": "t",
                "GIT_AUTHOR_EMAIL": "t@example.org",
                "GIT_COMMITTER_NAME": "t",
                "GIT_COMMITTER_EMAIL": "t@example.org",
            }
        )

    def _git(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
