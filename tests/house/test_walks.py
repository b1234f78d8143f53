"""The walks of docs/architecture.md name files that are there, none twice, each after one that imports it."""

from __future__ import annotations

import re

import grimp
import pytest

from tests.support.pipeline_project import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
#: DVC starts each stage by a command: what this imports may open a part of a walk.
STAGES = "kdleak.cli.pipeline"
#: Packages whose files are found by their folder: one of them is read where its package is imported.
DISCOVERED = ("kdleak.attacks", "kdleak.data.sources", "kdleak.distill.methods")
TITLES = ("From `kd.method` to a trained student", "A record, from its file to the report")


def walk(title: str) -> list[str]:
    """The files that the section's numbered list names, in its order."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    numbered = section[section.index("\n1. ") :].split("\n\n")[0]
    return re.findall(r"`((?:src/|study/)?[\w/]+\.(?:py|yaml))`", numbered)


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("kdleak", exclude_type_checking_imports=True, cache_dir=None)


@pytest.mark.parametrize("title", TITLES)
def test_a_walk_names_files_that_are_there_each_after_one_that_imports_it(title, graph):
    files = walk(title)
    assert len(files) > 20 and len(set(files)) == len(files)
    assert [file for file in files if not (ROOT / file).is_file()] == []
    imports = graph.find_modules_directly_imported_by
    modules = [file.removeprefix("src/").removesuffix(".py").replace("/", ".") for file in files if file[-3:] == ".py"]
    for place, module in enumerate(modules):
        package = module.rpartition(".")[0]
        through_package = package in DISCOVERED or module in imports(package)
        names = {module, package} if through_package else {module}
        before = imports(STAGES).union({"kdleak.cli.main"}, *map(imports, modules[:place]))
        assert names & before, f"{module} is imported by none of the files before it"
