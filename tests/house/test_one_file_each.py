"""A source, a method, an attack, a defence and a section of one file each (those of docs/howto) run through every stage
of the pipeline by their names in params.yaml: nothing else is told of them."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from importlib import import_module

import pandas as pd
import pytest
import yaml

from kdleak.attacks import ATTACKS
from kdleak.core.files import read_json
from kdleak.core.paths import Project
from kdleak.data.sources import registry
from kdleak.defend.defences import DEFENCES
from kdleak.distill.methods import METHODS
from kdleak.report.study.sections import SECTIONS, sections
from tests.support.pipeline_project import ROOT
from tests.support.small_project import CommandLine, change, small_project

#: The package of each kind of thing, and the file of the package in which its page puts one.
FILES = {
    "kdleak.data.sources": "phone_book",
    "kdleak.distill.methods": "jeffreys",
    "kdleak.attacks": "hits",
    "kdleak.defend.defences": "rounding",
    "kdleak.report.study.sections": "audited",
}
#: How a run asks for them.
ASKED = {
    "data.source": "phone_book",
    "data.rows": 120,
    "kd.method": "jeffreys",
    "defence.name": "rounding",
    "defence.step": 0.1,
}
QUICK = {
    "compute.measure_processes": 1,
    "base.epochs": 1,
    "teacher.epochs": 1,
    "canaries.references": 10,
    "audit.permutations": 20,
    "audit.mope.draws": 1,
    "audit.blocks.draws": 1,
}


def commands(method: str) -> list[str]:
    """What DVC runs for a method, but for `params`: in both files a stage stands below those that it reads from."""
    root, study = (yaml.safe_load((ROOT / name).read_text())["stages"] for name in ("dvc.yaml", "study/dvc.yaml"))
    *first, summary = (stage["cmd"] for name, stage in root.items() if name != "params")
    of_method = [
        study[name]["cmd"].replace("${item.method}", method) for name in ("text", "distill", "measure", "judge")
    ]
    listed = [*first, *of_method, summary, study["report"]["cmd"]]
    return [command.removeprefix("kdleak ") for command in listed]


def page_file(package: str, name: str) -> str:
    """The content that a page of docs/howto gives the file."""
    block = re.compile(rf"^```python file=src/{package.replace('.', '/')}/{name}\.py\n(.*?)^```$", re.M | re.S)
    pages = [page.read_text() for page in (ROOT / "docs" / "howto").glob("add-*.md")]
    (content,) = [found for page in pages for found in block.findall(page)]
    return content


@pytest.fixture
def registered(tmp_path, monkeypatch) -> Iterator[None]:
    """The files, each found as a file of its package is."""
    registry.sources(), sections()  # found when first asked for; what is put back below is then all of them
    known = (registry._SOURCES, METHODS, ATTACKS, DEFENCES, SECTIONS)
    before = [dict(each) for each in known]
    for package, name in FILES.items():
        folder = tmp_path / package
        folder.mkdir()
        (folder / f"{name}.py").write_text(page_file(package, name))
        module = import_module(package)
        monkeypatch.setattr(module, "__path__", [*module.__path__, str(folder)])
        import_module(f"{package}.{name}")
    yield
    for each, content in zip(known, before, strict=True):
        each.clear()
        each.update(content)
    for package, name in FILES.items():
        del sys.modules[f"{package}.{name}"]


@pytest.fixture
def project(tmp_path_factory) -> Project:
    """Params of a small project that ask for them, and no model."""
    made = small_project(tmp_path_factory.mktemp("project"))
    content = yaml.safe_load(made.params.read_text())
    for key, value in {**ASKED, **QUICK}.items():
        change(content, key, value)
    content["study"]["methods"].append("jeffreys")
    content["audit"]["attacks"].append("hit_rate")
    made.params.write_text(yaml.safe_dump(content, sort_keys=False))
    for folder in ("models", "results"):
        shutil.rmtree(made.root / folder)
    return made


def test_each_runs_through_the_pipeline_by_its_name_alone(registered, project, monkeypatch, capfd):
    kdleak = CommandLine(monkeypatch, capfd)
    for command in commands("jeffreys"):
        code, said = kdleak(project.root, *command.split())
        assert code == 0, f"{command}: {said}"
    records = pd.read_parquet(project.records)
    assert records["instruction"].str.fullmatch(r"What is \w+'s number\?").all()
    training = read_json(project.training("jeffreys"))
    assert (training["loss"], training["options"]) == ("jeffreys", {"balance": 0.5}) and training["history"]
    for name in ("teacher", "sft", "jeffreys"):
        assert pd.read_parquet(project.scores(name))["hit_rate"].notna().all()
        assert 0 <= read_json(project.membership(name))["attacks"]["hit_rate"]["auc"] <= 1
    metrics = read_json(project.metrics)
    assert (metrics["method"], metrics["defence"]) == ("jeffreys", "rounding")
    page = project.report.read_text()
    assert "Records behind the figures" in page and "hit_rate" in page and "jeffreys" in page
