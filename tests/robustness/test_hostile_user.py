"""A user who is not root: what is closed to him is one line (hostile/user.yaml), what he may do needs no home.

Root alone can become another user. The interpreter may lie where that one cannot look: in a mount namespace of its own
(`unshare -m`) it is bound to a folder that all may read.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import refusal_in, run_commands
from tests.support.hostile_inputs import TABLES, Tried, chosen
from tests.support.pipeline_project import ROOT
from tests.support.private_marks import leaks, marked
from tests.support.small_project import small_project

NOBODY = 65534


def _why_not() -> str:
    """Why this machine cannot start a process of another user; "" where it can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "only root becomes another user (and whoever runs this is none, as all other tests then show)"
    if not (shutil.which("unshare") and shutil.which("setpriv")):
        return "unshare or setpriv is missing"
    tried = subprocess.run(["unshare", "-m", "mount", "--bind", "/usr", "/mnt"], capture_output=True, text=True)
    return f"no mount namespace here ({tried.stderr.strip()})" if tried.returncode else ""


pytestmark = [pytest.mark.faults, pytest.mark.skipif(bool(_why_not()), reason=_why_not())]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """The folders that the table names, where all may look."""
    top = Path(tempfile.mkdtemp(prefix="kdleak-user-"))
    top.chmod(0o755)
    (top / "project").mkdir()
    project = small_project(top / "project", marked)
    for name in ("own", "closed", "open", "python", "site", "repository"):
        (top / name).mkdir()
    for name in ("open/model", "closed/model", "shut"):
        shutil.copytree(project.model("teacher"), top / name)
        for path in (top / name).iterdir():
            path.chmod(0o644)
    (top / "shut" / "model.safetensors").chmod(0o600)
    for file, seed in (("own/m", 1), ("own/n", 2), ("closed/m", 3), ("secret", 4)):
        (top / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in marked(12, seed)))
    for path in (top / "own", *(top / "own").iterdir()):
        os.chown(path, NOBODY, NOBODY)
    (top / "secret.jsonl").chmod(0o600)
    (top / "closed").chmod(0o700)
    yield top
    shutil.rmtree(top)


def start(top: Path) -> tuple[list[str], dict[str, str]]:
    """The command that starts `tests.support.commands` as that user, and its environment."""
    bound = {sys.base_prefix: top / "python", sys.prefix: top / "site", str(ROOT): top / "repository"}
    mounts = " && ".join(f"mount --bind {shlex.quote(a)} {shlex.quote(str(b))}" for a, b in bound.items())
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    become = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --bounding-set=-all --inh-caps=-all"
    script = f"{mounts} && cd {top}/repository && exec {become} {top}/python/bin/{version} -m tests.support.commands"
    paths = [top / "repository/src", top / "repository", top / f"site/lib/{version}/site-packages"]
    environment = {
        "PYTHONHOME": str(top / "python"), "LD_LIBRARY_PATH": str(top / "python/lib"), "HOME": "/nonexistent",
        "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    return ["unshare", "-m", "sh", "-c", script], environment


def test_user(tried: Tried, place):
    entries = chosen(TABLES["user"]["commands"])
    cases = []
    for number, entry in enumerate(entries):
        argv = list(entry["command"])
        if argv[0] == "audit":
            sound = {"--student": "../open/model", "--members": "m.jsonl", "--nonmembers": "n.jsonl"}
            sound["--out"] = f"out{number}"
            argv += ["--quick", *(part for key, name in sound.items() if key not in argv for part in (key, name))]
        cases.append({"cwd": str(place / entry["in"]), "argv": argv})
    prefix, environment = start(place)
    before = {path: path.stat().st_mode for path in (place / "project").rglob("*")}
    for entry, ending in zip(entries, run_commands(cases, environment, prefix), strict=True):
        said = refusal_in(ending["err"]) if ending["code"] else ""
        beside = ending["out"] + ending["err"] + ending["trace"]
        tried.ended(entry, ending["code"], said, "says" in entry, beside)
        if "says" not in entry and ending["code"]:
            tried.broken.append(f"{entry} -> {ending}")
        elif entry.get("says", "") not in said:
            tried.broken.append(f"{entry} says otherwise: {said}")
    assert before == {path: path.stat().st_mode for path in (place / "project").rglob("*")}
    tried.broken += leaks(place / "project")
    tried.done(place / "own", ("m.jsonl", "n.jsonl", "cache"))
    cache = place / "own" / "cache"
    assert cache.stat().st_mode & 0o777 == 0o700 and cache.stat().st_uid == NOBODY
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in cache.iterdir())
