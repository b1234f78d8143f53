"""The figures of the pages are those of results/, the links lead somewhere, the commands are commands."""

from __future__ import annotations

import re
import runpy
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import yaml

from kdleak.core.paths import BASELINE, TEACHER, Project
from kdleak.render.wording import with_interval
from tests.support.pipeline_project import ROOT

MAKE = runpy.run_path(str(ROOT / "docs" / "make_readme.py"))
README = (ROOT / "README.md").read_text()
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", MAKE["PAGES"])
def test_marked_parts_are_what_the_results_say(page):
    text = (ROOT / page).read_text()
    assert MAKE["filled"](text) == text, "results have changed: run 'make readme'"


def test_every_figure_of_the_readmes_table_is_in_its_file():
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", README, flags=re.MULTILINE)
    assert [attack for attack, _ in rows] == list(MAKE["ATTACKS"])
    figures = pd.read_csv(Project(ROOT).attacks_table)
    for attack, cells in rows:
        for model, cell in zip((TEACHER, "kd", BASELINE), cells.split("|"), strict=True):
            row = figures[(figures["method"] == model) & (figures["attack"] == attack)]
            shown = [with_interval(r.auc, (r.auc_low, r.auc_high)) for r in row.itertuples()]
            assert cell.strip() == "".join(shown) and len(shown) <= 1


def test_a_figure_that_differs_from_its_file_is_seen():
    changed = README.replace(".843 [.818, .866]", ".848 [.818, .866]")
    assert MAKE["filled"](changed) == MAKE["filled"](README)  # the figure comes from the file, not from the page


def test_the_stages_of_the_readmes_graph_feed_each_other():
    """Each arrow is a file that one stage writes and the other reads; `measure` is measure, measure-teacher ..."""
    stages: dict[str, dict] = {}
    for name in ("dvc.yaml", "study/dvc.yaml"):
        stages |= yaml.safe_load((ROOT / name).read_text())["stages"]

    def paths(stage: str, kind: str) -> set[str]:
        lists = [entry.get(kind, []) for name, entry in stages.items() if re.fullmatch(rf"{stage}(-\w+)?", name)]
        return {path if isinstance(path, str) else next(iter(path)) for each in lists for path in each}

    graph = README.split("```mermaid\n")[1].split("```")[0]
    arrows = [pair for line in graph.splitlines()[1:] for pair in pairwise(line.split(" --> "))]
    assert len({stage.strip() for pair in arrows for stage in pair}) == 10
    for first, second in arrows:
        written, read = paths(first.strip(), "outs"), paths(second.strip(), "deps")
        assert any(dep == out or out.startswith(f"{dep}/") for dep in read for out in written), (first, second)


def test_the_readme_is_read_in_a_sitting():
    assert README.count("\n") <= 110


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", link):
            continue
        name, _, heading = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link}: no such file"
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
            assert heading in anchors, f"{link}: no such heading"


def test_the_picture_of_the_rooms_is_drawn_from_todays_imports():
    made = runpy.run_path(str(ROOT / "docs" / "make_architecture.py"))
    assert made["PICTURE"].read_text() == made["picture"](), "imports have changed: run 'make readme'"


def test_files_that_the_walks_name_are_there_and_none_is_read_twice():
    page = (ROOT / "docs" / "architecture.md").read_text()
    walks = page.split("## From `kd.method`")[1].split("## What is kept where")[0]
    for walk in walks.split("## A record"):
        named = re.findall(r"`(src/kdleak/[\w/]+(?:\.py)?/?)`", walk)
        assert len(set(named)) == len(named)
        assert [name for name in named if not (ROOT / name).exists()] == []
