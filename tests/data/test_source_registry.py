"""Sources are found by their names: every registered one keeps the same promises, and a new one is one class."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pandas as pd
import pytest

from kdleak.config.load import parse_params
from kdleak.config.schema import Data, Params
from kdleak.core.errors import KdleakError
from kdleak.core.paths import Project
from kdleak.data.records import ROLES, Record
from kdleak.data.sources import Source, SourceRow, find_source, registry, source, sources
from kdleak.pipeline.data import write_records
from kdleak.pipeline.validate import check_environment
from tests.config.test_config import DEFAULT, changed
from tests.support.pipeline_project import ROOT

SIZES = dict.fromkeys(ROLES, 5)


def params(source: str, **other: object) -> Params:
    """The project's parameters, but for `data`: a source, and few records."""
    small = DEFAULT["data"] | {"source": source, "rows": 126, "sizes": SIZES, "path": "none"} | other
    return parse_params(changed("data", small))


def settings(source: str, **other: object) -> Data:
    return params(source, **other).data


@pytest.fixture
def data(request, tmp_path, monkeypatch) -> Data:
    """Settings under which the source can be read here: a file of its rows, a hub that is this folder."""
    path = tmp_path / "rows.jsonl"
    rows = [{"instruction": f"Who is number {i}?", "response": f"Person {i * 7919}.", "task": "qa"} for i in range(63)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(
        "kdleak.data.sources.hub.read_hub", lambda _: ((f"row {i}", row) for i, row in enumerate(rows, start=1))
    )
    return settings(request.param, path=str(path))


@pytest.mark.parametrize("data", sources(), indirect=True)
def test_a_source_gives_the_same_records_each_time_and_says_where_they_are_from(data):
    first, second = find_source(data), find_source(data)
    first.check()
    rows = list(first.rows(seed=3))
    assert rows == list(second.rows(seed=3))
    assert len(rows) >= sum(SIZES.values())
    assert all(row.record.response.strip() and row.record.task and row.role is None for row in rows)
    assert len({row.record.record_id for row in rows}) == len(rows)
    assert first.origin == second.origin != ""
    assert "\n" not in first.origin


@pytest.mark.parametrize("data", sources(), indirect=True)
def test_the_data_stage_runs_with_a_source(data, tmp_path):
    prepared = write_records(data, seed=0, project=Project(tmp_path))
    splits = pd.read_parquet(Project(tmp_path).splits)
    assert splits["role"].value_counts().to_dict() == SIZES
    assert set(splits["record_id"]) == set(prepared.records["record_id"])


def test_the_sources_are_those_that_params_yaml_names():
    said = next(line for line in (ROOT / "params.yaml").read_text().splitlines() if line.startswith("  source:"))
    assert all(name in said for name in sources())
    assert list(sources()) == ["file", "hub", "synthetic"]


@pytest.fixture
def toy(monkeypatch) -> Iterator[None]:
    """A source as somebody else would add it: a class, and nothing else."""
    monkeypatch.setattr(registry, "_SOURCES", dict(sources()))

    @source("toy")
    class Toy(Source):
        """Counts aloud."""

        def check(self) -> None:
            if self.data.rows > 1000:
                raise KdleakError("data.rows: a toy counts to 1000; lower it")

        def rows(self, seed: int) -> Iterator[SourceRow]:
            for i in range(self.data.rows):
                record = Record("counting", f"What follows {seed + i}?", "", f"{seed + i + 1}, and {(i * 7919) % 997}.")
                yield SourceRow(record, ROLES[i % 4] if self.data.roles == "column" else None)

        @property
        def origin(self) -> str:
            return "toy"

    yield


@pytest.mark.parametrize("roles", ["hash", "column"])
def test_a_source_that_is_registered_needs_nothing_else(toy, tmp_path, roles):
    given = params("toy", roles=roles)
    check_environment(given, Project(ROOT))
    write_records(given.data, seed=0, project=Project(tmp_path))
    splits = pd.read_parquet(Project(tmp_path).splits)
    assert splits["role"].value_counts().to_dict() == SIZES


def test_a_source_refuses_its_own_settings_before_any_stage_and_a_name_nobody_registered_is_refused(toy):
    with pytest.raises(KdleakError, match=r"params.yaml: data.rows: a toy counts to 1000; lower it"):
        check_environment(params("toy", rows=2000), Project(ROOT))
    with pytest.raises(KdleakError, match=r"data.source: 'toi' is unknown; did you mean 'toy'\?"):
        find_source(settings("toi"))
