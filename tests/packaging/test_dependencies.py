"""pyproject.toml declares what src imports, and `kdleak audit` runs with the plain install alone."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest

from kdleak.cli.project import PIPELINE_PACKAGES
from kdleak.models.checkpoints import save_checkpoint
from tests.support.pipeline_project import ROOT
from tests.support.standalone_models import people, tokenizer_of
from tests.support.tiny_models import tiny_model

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def normalised(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def declared(requirements: list[str]) -> set[str]:
    return {normalised(each) for each in requirements}


def imported(folder: str) -> dict[str, str]:
    """Top-level package -> a file of the folder that imports it, at once or inside a function."""
    found = {}
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for top in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"kdleak"}:
                found[top] = str(path.relative_to(ROOT))
    return found


def test_every_import_is_declared_and_every_declaration_imported():
    ours = declared(PROJECT["dependencies"]) | declared(EXTRAS["pipeline"]) | declared(EXTRAS["dp"])
    owners = {top: declared(names) for top, names in packages_distributions().items()}
    used, by_tests = imported("src"), imported("tests")
    optional = declared(EXTRAS["convert"])  # imported inside a function, where it is installed
    assert {top: path for top, path in used.items() if not owners.get(top, {top}) & (ours | optional)} == {}
    theirs, of_the_tree = ours | declared(EXTRAS["dev"]), {"tests", "benchmarks", "stage_watch"}
    missing = {top: path for top, path in by_tests.items() if not owners.get(top, set()) & theirs}
    assert missing.keys() <= of_the_tree | optional, missing  # those are skipped where absent
    assert ours - {"dvc"} <= set().union(*(owners.get(top, ()) for top in used))  # dvc is a command: nothing imports it


def test_no_package_is_declared_twice():
    parts = (PROJECT["dependencies"], EXTRAS["pipeline"], EXTRAS["dp"], EXTRAS["convert"], EXTRAS["dev"])
    names = [normalised(each) for part in parts for each in part]
    assert sorted(set(names)) == sorted(names)


def test_the_command_line_asks_for_what_the_extra_installs():
    names = {normalised(name) for name in PIPELINE_PACKAGES}
    assert names == declared(EXTRAS["pipeline"])


def test_constraints_pin_every_direct_dependency():
    pinned = {normalised(line) for line in (ROOT / "constraints.txt").read_text().split()}
    extras = [name for extra in ("pipeline", "dp", "convert", "dev") for name in EXTRAS[extra]]
    direct = declared(PROJECT["dependencies"] + extras) - {"setuptools"}
    assert direct <= pinned


#: `kdleak`, in a process where no file of kdleak can import what the extra installs, and none at all the three largest.
WITHOUT_PIPELINE = """
import builtins, sys
true_import = builtins.__import__
def limited(name, globals=None, locals=None, fromlist=(), level=0):
    of_kdleak = (globals or {}).get("__name__", "").partition(".")[0] == "kdleak"
    if of_kdleak and level == 0 and name.partition(".")[0] in BLOCKED:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return true_import(name, globals, locals, fromlist, level)
builtins.__import__ = limited
for name in ("dvc", "mlflow", "great_expectations"):
    sys.modules[name] = None  # an import would raise
from kdleak.cli.main import main
main()
"""


@pytest.fixture
def inputs(tmp_path):
    rows = {"m": people(12, 1), "n": people(12, 2)}
    for name, content in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    tokenizer = tokenizer_of(rows["m"] + rows["n"])
    save_checkpoint(tiny_model("gpt2", layers=1, vocabulary=len(tokenizer)), tokenizer, tmp_path / "student")
    return tmp_path


def test_an_audit_in_an_empty_folder_needs_no_package_of_the_pipeline(inputs):
    folder = inputs / "empty"
    folder.mkdir()
    blocked = {name.partition(".")[0] for name in PIPELINE_PACKAGES}
    script = f"BLOCKED = {blocked!r}\n{WITHOUT_PIPELINE}"
    options = [
        "--student",
        "../student",
        "--members",
        "../m.jsonl",
        "--nonmembers",
        "../n.jsonl",
        "--template",
        "plain",
    ]
    done = subprocess.run([sys.executable, "-c", script, "audit", *options], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Of 1,000 members" in done.stdout and "kdleak-audit/report.html" in done.stdout
    assert [p.name for p in folder.iterdir()] == ["kdleak-audit"]
    assert {p.name for p in (folder / "kdleak-audit").iterdir()} == {"audit.json", "report.html", "scores.parquet"}
