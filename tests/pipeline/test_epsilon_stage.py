"""The epsilon stage on a small project: what it trains on, what it writes, what it keeps."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from kdleak.certify.coins import coin_canaries
from kdleak.certify.names import defence_key
from kdleak.config.load import load_params
from kdleak.core.files import read_parquet, write_json, write_parquet
from kdleak.core.paths import Project
from kdleak.data.canaries import write_canaries
from kdleak.data.records import read_role, record_id
from kdleak.defend.defences import DEFENCES
from kdleak.defend.grid import GridPoint, default_grid
from kdleak.pipeline import canary_cost, epsilon
from kdleak.shadow.halves import halves
from kdleak.shadow.report import settings_of
from kdleak.shadow.store import ShadowStore
from kdleak.tracking.certified import epsilon_metrics
from tests.docs.test_measures import without_entry
from tests.support.small_project import small_project
from tests.support.standalone_models import people

COINS = 24


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = small_project(tmp_path_factory.mktemp("epsilon"))
    write_canaries(load_params(made.params).canaries.model_copy(update={"each": 1, "references": 2}), 0, made)
    shutil.copytree(made.base_student, made.base_external)
    frame, rows = read_parquet(made.records), pd.DataFrame(people(COINS, seed=9)).assign(context="", task="qa")
    rows["record_id"] = [record_id(i, "", r) for i, r in zip(rows["instruction"], rows["response"], strict=True)]
    more = rows.assign(role="auxiliary", group_id=rows["record_id"], facts=[[] for _ in range(COINS)])
    write_parquet(pd.concat([frame, more[frame.columns]], ignore_index=True), made.records)
    return made


def params_of(project: Project, canaries: int = COINS, **defence):
    params = load_params(project.params)
    section = params.epsilon.model_copy(update={"canaries": canaries})
    teacher = params.teacher.model_copy(update={"epochs": 1})
    chosen = params.defence.model_validate(params.defence.model_dump() | defence)
    return params.model_copy(update={"epsilon": section, "defence": chosen, "teacher": teacher})


def read(project: Project) -> dict:
    return json.loads(project.epsilon_report.read_text())["audits"]


def test_a_teacher_of_its_own_learns_private_and_the_coins_that_fell_in(project, monkeypatch):
    taught = []

    def spy(params, own):
        taught.append((read_parquet(own.canaries), set(read_role(own.records, "private")["record_id"])))
        return real(params, own)

    real = epsilon.fine_tune_teacher
    monkeypatch.setattr(epsilon, "fine_tune_teacher", spy)
    monkeypatch.setattr(canary_cost, "fine_tune_teacher", spy)
    teacher = (project.root / "models/teacher/model.safetensors").read_bytes()
    params = params_of(project)
    epsilon.certify(params, project)
    coins = coin_canaries(read_role(project.records, "auxiliary"), COINS, params.seed)
    (table, private), (ordinary, same) = taught
    planted = table.set_index("record_id")["repetitions"]
    assert planted[coins["record_id"]].tolist() == coins["repetitions"].tolist()
    assert set(read_parquet(project.canaries)["record_id"]) == set(planted.index) - set(coins["record_id"])
    assert private == same == set(read_role(project.records, "private")["record_id"])
    # Whom it is compared with learns as many records: those that the canaries were made of.
    auxiliary = read_role(project.records, "auxiliary")["record_id"]
    assert ordinary["repetitions"].tolist() == table["repetitions"].tolist()
    assert ordinary["record_id"].tolist()[:-COINS] == table["record_id"].tolist()[:-COINS]
    assert set(ordinary["record_id"][-COINS:]) <= set(auxiliary) and not set(planted.index) & set(auxiliary)
    assert (project.root / "models/teacher/model.safetensors").read_bytes() == teacher
    assert not (project.root / ".kdleak" / "epsilon").exists()
    found = read(project)["none"]
    assert set(found["models"]) == {"teacher", "kd", "sft"} and found["planted"] == coins["repetitions"].sum()
    assert found["records"] == 12 + planted.sum() and found["models"]["kd"]["one_run"]["canaries"] == COINS / 2
    assert found["accountant"] is None and {each["state"] for each in found["chain"]} <= {"holds", "could not run"}
    assert found["perplexity"]["cost"] == pytest.approx(
        found["perplexity"]["with_canaries"] / found["perplexity"]["with_ordinary"] - 1, abs=1e-5
    )
    assert without_entry(found) == set()
    assert (
        epsilon_metrics("kd", params, project)["teacher_epsilon_lower"]
        == found["models"]["teacher"]["one_run"]["epsilon_lower"]
    )
    assert epsilon_metrics("kd", params.model_copy(update={"seed": 9}), project) == {}


def test_another_defence_stands_beside_the_first_and_none_is_lost_where_none_is_asked_for(project):
    pytest.importorskip("opacus", reason="needs Opacus: pip install 'kdleak[dp]'")
    first = read(project)["none"]
    params = params_of(project, name="dp_sgd", sigma=2.0)
    epsilon.certify(params, project)
    audits, before = read(project), project.epsilon_report.read_bytes()
    assert set(audits) == {"none", defence_key(params)} == {"none", "dp_sgd 2"} and audits["none"] == first
    private = audits["dp_sgd 2"]
    assert private["accountant"] > 0 and private["delta"] == pytest.approx(private["records"] ** -1.1, abs=1e-5)
    assert {each["link"]: each["state"] for each in private["chain"]}["teacher <= accountant"] == "holds"
    epsilon.certify(params_of(project, canaries=0), project)
    assert project.epsilon_report.read_bytes() == before


#: Each at its last strength, where an accountant claims most; so few records part into two shards, not into 16.
STRONGEST = {each.name: each for each in default_grid()} | {"split_teachers": DEFENCES["split_teachers"](teachers=2)}


@pytest.mark.parametrize("name", STRONGEST)
def test_under_every_defence_of_the_default_grid_no_student_lies_above_its_accountant(project, monkeypatch, name):
    if name in ("dp_sgd", "dp_student"):
        pytest.importorskip("opacus", reason="needs Opacus: pip install 'kdleak[dp]'")
    monkeypatch.setattr(epsilon, "canary_cost", lambda *_: {"with_canaries": 2.0, "with_ordinary": 1.0, "cost": 1.0})
    params = GridPoint(STRONGEST[name], 0).settings(params_of(project))
    epsilon.certify(params, project)
    found = read(project)[defence_key(params)]
    assert found["defence"] == name and (found["accountant"] is not None) == (name == "dp_sgd")
    assert not [link for link in found["chain"] if link["state"] == "broken"]
    if name == "dp_sgd":
        low, most = found["models"]["kd"]["one_run"]["epsilon_lower"], found["accountant"]
        assert low <= most and {"kd <= accountant", "teacher <= accountant"} <= {
            link["link"] for link in found["chain"] if link["state"] == "holds"
        }


def test_a_student_of_sampled_tokens_is_held_to_the_epsilon_of_its_own_making_and_all_shards_are_asked(
    project, monkeypatch
):
    pytest.importorskip("opacus", reason="needs Opacus: pip install 'kdleak[dp]'")
    monkeypatch.setattr(epsilon, "canary_cost", lambda *_: {"with_canaries": 2.0, "with_ordinary": 1.0, "cost": 1.0})
    asked = []
    real = epsilon._scores_of
    monkeypatch.setattr(epsilon, "_scores_of", lambda *args: asked.append((args[1], args[0].name)) or real(*args))
    params = params_of(project, name="split_teachers", teachers=2, mix="pmixed", radius=0.01, most_tokens=8)
    params = params.model_copy(update={"epsilon": params.epsilon.model_copy(update={"methods": ["seqkd"]})})
    epsilon.certify(params, project)
    found = read(project)[defence_key(params)]
    assert [folder for model, folder in asked if model == "teacher"] == ["teacher", "1"]
    stated = found["models"]["seqkd"]["accountant"]
    assert stated > 0 and found["accountant"] is None and found["delta"] == 1e-5
    links = {each["link"]: (each["state"], each["why"]) for each in found["chain"]}
    assert links["seqkd <= accountant"][0] == "holds" and f"against {stated:.3f}" in links["seqkd <= accountant"][1]
    assert links["teacher <= accountant"][0] == "could not run"


def test_where_nothing_was_ever_asked_for_the_report_is_empty(project, tmp_path):
    epsilon.certify(params_of(project, canaries=0), Project(tmp_path))
    assert read(Project(tmp_path)) == {}


def test_shadow_models_of_the_same_settings_give_a_bound_over_trainings(project):
    params = params_of(project)
    assert epsilon._multi_run(params, project, 1e-5)["why"] == "no shadow models were trained (shadow.models)"
    records = epsilon.audited_records(project)
    inside = halves(records["group_id"], 16, params.seed)
    store = ShadowStore(project.shadow, records["record_id"])
    for number, side in enumerate(inside):
        scores = {each: side * 5.0 + np.random.default_rng(number).normal(size=24) / 9 for each in ("loss", "ez")}
        store.add(number, {"teacher": scores, "kd": scores})
    said = settings_of(params) | {"models": 16, "attacks": {"teacher": {}, "kd": {}}}
    write_json(said, project.shadow_report)
    found = epsilon._multi_run(params, project, 1e-5)["models"]["kd"]
    assert found["true_positives"] == found["pairs"] == 4 and found["false_positives"] == 0
    write_json(said | {"seed": 5}, project.shadow_report)
    assert "other settings: seed" in epsilon._multi_run(params, project, 1e-5)["why"]
