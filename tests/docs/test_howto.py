"""The pages of docs/howto are applied to a copy of the project, block by block, and their commands are run there.

A fenced block of a page is a file (```` ```python file=PATH ````), an addition to one (`append=PATH`), a change
(```` ```diff ````, for `git apply`) or commands (```` ```console ````, the lines that begin with `$ `).
A page that `needs` a file of the project is left out where that file is not there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pipeline_project import ROOT

PAGES = sorted((ROOT / "docs" / "howto").glob("add-*.md"))
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def copy(tmp_path) -> Path:
    """The project's files but results and locks, under git, as a contributor has them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        source = ROOT / name
        if source.is_file() and not name.startswith("results/") and not name.endswith("dvc.lock"):
            target = tmp_path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def apply(block: re.Match[str], copy: Path) -> list[str]:
    """Do in `copy` what a block says; what it printed, a text a command."""
    language, attributes, content = block.groups()
    named = dict(re.findall(r"(\w+)=(\S+)", attributes))
    if "file" in named or "append" in named:
        path = copy / (named.get("file") or named["append"])
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text() if "append" in named else ""
        path.write_text(before + content)
    elif language == "diff":
        command = ["git", "apply", "--recount", "-C1", "-"]
        subprocess.run(command, cwd=copy, input=content, check=True, text=True)
    elif language == "console":
        return [run(line[2:], copy) for line in content.splitlines() if line.startswith("$ ")]
    return []


def run(command: str, copy: Path) -> str:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "KDLEAK_", "PYTEST_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**kept, "PATH": path, "PYTHONPATH": str(copy / "src")}
    done = subprocess.run(command, shell=True, cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_the_page_says_works(page, copy):
    text = page.read_text()
    missing = [name for name in re.findall(r"<!-- needs (\S+) -->", text) if not (ROOT / name).exists()]
    if missing:
        pytest.skip(f"needs {missing[0]}, which is not there yet")
    printed = [output for block in BLOCK.finditer(text) for output in apply(block, copy)]
    assert printed, "a page ends with a command that shows that it worked"
    assert "passed" in printed[-1] and "failed" not in printed[-1]


def test_there_is_a_page_for_each_thing_that_has_a_registry():
    things = {page.stem.removeprefix("add-an-").removeprefix("add-a-") for page in PAGES}
    assert things == {"attack", "defence", "family", "method", "section", "source"}
