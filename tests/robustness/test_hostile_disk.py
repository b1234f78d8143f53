"""A disk that fails in the middle (hostile/disk.yaml): one line that names the file, what was there before is whole,
and the same command goes well once the disk does. The disk is a library that is preloaded; it needs a C compiler."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kdleak.data.canaries import write_canaries
from tests.support.commands import refusal_in, run_commands
from tests.support.distillation import params
from tests.support.hostile_inputs import TABLES, Tried, chosen
from tests.support.private_marks import PRIVATE_FOLDERS, leaks, marked
from tests.support.small_project import small_project

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(
        sys.platform != "linux" or not shutil.which("cc"), reason="preloads a library that it compiles (Linux, cc)"
    ),
]
SOURCE = Path(__file__).parents[1] / "support" / "failing_disk.c"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A small project with a student, and the lists of an audit beside it."""
    project = small_project(tmp_path_factory.mktemp("disk"))
    shutil.copytree(project.model("sft"), project.model("kd"))
    write_canaries(params().canaries, 0, project)
    for name, seed in (("m", 1), ("n", 2)):
        (project.root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in marked(12, seed)))
    return project.root


def command(arguments: list[str]) -> list[str]:
    if arguments[0] != "audit":
        return arguments
    lists = ["--members", "m.jsonl", "--nonmembers", "n.jsonl"]
    return [*arguments, "--student", "models/teacher", *lists, "--quick", "--out", "out"]


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and ".kdleak" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_disk(tried: Tried, tmp_path, whole):
    library = tmp_path / "failing_disk.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    entries = [(entry, True) for entry in chosen(TABLES["disk"]["faults"])]
    entries += [(entry, False) for entry in chosen(TABLES["disk"]["spared"])]
    cases: list[dict[str, Any]] = []
    for number, (entry, _) in enumerate(entries):
        operation, under, after = entry["fails"]
        folder = shutil.copytree(whole, tmp_path / str(number))
        case = {"cwd": str(folder), "argv": command(entry["command"])}
        cases += [case | {"fails": [operation, f"{folder}/{under}", after]}, case]
    endings = run_commands(cases, {"LD_PRELOAD": str(library)})
    before = content(whole)
    for number, (entry, refused) in enumerate(entries):
        failed, well = endings[2 * number : 2 * number + 2]
        if not refused:
            assert failed["code"] == 0 and "Traceback" not in failed["err"], (entry, failed)
        said = refusal_in(failed["err"])
        beside = failed["out"] + failed["err"] + failed["trace"] + well["out"] + well["err"]
        tried.ended(entry, failed["code"], said, refused, beside)
        tried.broken += leaks(tmp_path / str(number), (*PRIVATE_FOLDERS, "m.jsonl", "n.jsonl"))
        if refused and entry["names"] not in said:
            tried.broken.append(f"{entry} does not name {entry['names']}: {said}")
        if well["code"]:
            tried.broken.append(f"{entry}: the disk is mended, and still {well['err'][-300:]}")
        lost = before.keys() - content(tmp_path / str(number)).keys()
        left = [path for path in (tmp_path / str(number)).rglob(".*.[0-9]*")]
        assert not lost and not left, (entry, lost, left)
    tried.done()
