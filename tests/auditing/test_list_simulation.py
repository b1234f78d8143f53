"""Claims on `benchmarks/list_verdict.py`: its lists are parted by chance, groups whole, and what was used is found."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from benchmarks import list_verdict as simulation

from kdleak.core.paths import Project
from kdleak.data.sides import as_roles


@pytest.fixture
def study(tmp_path):
    """A study of 240 records in groups of two, with a student that leaks and a baseline that does not."""
    generator, project = np.random.default_rng(0), Project(tmp_path)
    ids, role = [f"r{i:03d}" for i in range(240)], ["private"] * 120 + ["heldout"] * 120
    records = pd.DataFrame({"record_id": ids, "group_id": [f"g{i // 2}" for i in range(240)]})
    project.records.parent.mkdir()
    records.to_parquet(project.records)
    for name, shift in (("sft", 0.0), ("kd", 2.0)):
        columns = {a: generator.normal(size=240) + shift * (np.arange(240) < 120) for a in ("loss", "zlib", "ez")}
        path = project.scores(name)
        path.parent.mkdir(parents=True)
        pd.DataFrame({"record_id": ids, "role": role, "task": "t", **columns}).to_parquet(path)
    return simulation.Study(project)


def test_lists_of_a_null_audit_are_parted_by_chance_and_keep_groups_whole(study, monkeypatch):
    monkeypatch.setattr(simulation, "NULL_SIDE", 30)
    rows, member = simulation.by_chance(study, study.table("kd"), np.random.default_rng(1))
    owner = np.array([study.groups[i] for i in rows["record_id"]])
    assert len(rows) == 60 and member.sum() == 30
    assert all(len(set(member[owner == group])) == 1 and (owner == group).sum() == 2 for group in owner)
    assert 5 < (rows["role"] == "member")[member].sum() < 25


def test_what_was_used_is_found_and_what_was_not_is_seldom(study, monkeypatch):
    monkeypatch.setattr(simulation, "PLANTED", (("kd", 40, 1.0),))
    said = []
    assert simulation.planted(study, 5, said.append)[0] == {
        "student": "kd", "records_a_side": 40, "share_used": 1.0, "audits": 5, "found": 5
    }  # fmt: skip
    null = simulation.null_audits(study, 20)
    assert null["audits"] == 20 == sum(null["deciles"]) and null["false_at_alpha"] <= 2 and len(said) == 1


def test_without_a_model_that_never_met_the_teacher_no_mild_difference_is_said_to_be_learned(study, monkeypatch):
    """20 lists that nobody used, of which one has more of the easy records: the test sees them, no words accuse."""
    for name in ("sft", "kd"):  # what is easy is so for every model
        table = study.table(name)
        easy = np.random.default_rng(3).normal(size=len(table))
        table[["loss", "zlib", "ez"]] += 2.0 * easy[:, None]
        as_roles(table).to_parquet(study.project.scores(name))
    monkeypatch.setattr(simulation, "EASY", 0.85)
    alone, beside = simulation.mild_differences(study, 20)
    assert alone["said"].get("learned", 0) == 0 and alone["said"]["cannot_tell"] >= 15 and alone["audits"] == 20
    assert beside["said"].get("learned", 0) <= 1
