"""The wheel is what a user installs: it is built, unpacked elsewhere and run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import kdleak
from tests.support.pipeline_project import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the wheel's content; the wheel is built without a network, from a copy of the sources."""
    source, built, target = (tmp_path_factory.mktemp(name) for name in ("source", "built", "installed"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *offline, "-w", built, source], check=True)
    (wheel,) = built.glob("*.whl")
    assert wheel.name == f"kdleak-{kdleak.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def run(installed: Path, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True
    ).stdout


def test_it_holds_every_module_and_every_file_beside_them(installed):
    def files(root: Path) -> set[str]:
        return {
            str(path.relative_to(root))
            for path in root.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
        }

    assert files(installed / "kdleak") == files(ROOT / "src" / "kdleak")


def test_it_runs_in_another_folder(installed, tmp_path):
    where = run(installed, tmp_path, "-c", "import kdleak; print(kdleak.__file__)")
    assert Path(where.strip()).is_relative_to(installed)
    assert run(installed, tmp_path, "-m", "kdleak", "--version").strip() == f"kdleak {kdleak.__version__}"
    assert "--members" in run(installed, tmp_path, "-m", "kdleak", "audit", "--help")


def test_its_script_and_its_licence_are_there(installed):
    (info,) = installed.glob("*.dist-info")
    assert "kdleak = kdleak.cli.main:main" in (info / "entry_points.txt").read_text()
    assert "Apache License" in (info / "licenses" / "LICENSE").read_text()
    assert "Provides-Extra: pipeline" in (info / "METADATA").read_text()
