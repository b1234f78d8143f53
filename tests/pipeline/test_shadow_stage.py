"""The shadow stage on a project of 48 records: what it trains, what it keeps, what it makes anew."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from kdleak.config.load import load_params
from kdleak.core.errors import KdleakError
from kdleak.core.files import read_parquet, write_parquet
from kdleak.core.paths import Project
from kdleak.data.canaries import write_canaries
from kdleak.pipeline import shadow, shadow_models
from kdleak.pipeline.shadow_arms import of_arm
from kdleak.shadow.store import ShadowStore
from tests.support.small_project import small_project


@pytest.fixture
def project(tmp_path):
    made = small_project(tmp_path)
    write_canaries(load_params(made.params).canaries.model_copy(update={"each": 1, "references": 2}), 0, made)
    shutil.copytree(made.base_student, made.base_external)
    return made


@pytest.fixture
def trained(monkeypatch):
    """In place of trainings in processes of their own: scores that say which model was asked for."""
    calls = []

    def scores(number, name):
        return {each: np.full(24, number + len(name) / 100 + offset) for each, offset in (("loss", 0.0), ("ez", 0.5))}

    def run(make, tasks, workers):
        for number, methods in tasks:
            calls.append((number, methods))
            yield (number, methods), {name: scores(number, name) for name in ("teacher", *methods)}

    monkeypatch.setattr(shadow, "run_tasks", run)
    monkeypatch.setattr(shadow, "shadow_report", lambda *_: {})
    return calls


def params_of(project: Project, models: int, methods: list[str], **kd):
    params = load_params(project.params)
    chosen = params.shadow.model_copy(update={"models": models, "methods": methods})
    return params.model_copy(update={"shadow": chosen, "kd": params.kd.model_copy(update=kd)})


def test_finished_models_are_kept_and_more_are_added(project, trained):
    shadow.make_shadows(params_of(project, 2, ["kd"]), project)
    assert trained == [(0, ("kd",)), (1, ("kd",))]
    first = read_parquet(project.shadow / "kd.parquet")
    trained.clear()
    shadow.make_shadows(params_of(project, 4, ["kd", "rkl"]), project)
    assert sorted(trained) == [(0, ("rkl",)), (1, ("rkl",)), (2, ("kd", "rkl")), (3, ("kd", "rkl"))]
    more = read_parquet(project.shadow / "kd.parquet")
    assert list(more)[1:] == [f"{each}.{k}" for k in range(4) for each in ("ez", "loss")]
    pd.testing.assert_frame_equal(more[list(first)], first)
    assert more["loss.3"].dtype == np.float32


def test_a_run_that_was_stopped_goes_on(project, trained):
    shadow.make_shadows(params_of(project, 4, ["kd"]), project)
    store = read_parquet(project.shadow / "kd.parquet").drop(columns=["loss.2", "ez.2"])
    write_parquet(store, project.shadow / "kd.parquet")
    trained.clear()
    shadow.make_shadows(params_of(project, 4, ["kd"]), project)
    assert trained == [(2, ("kd",))]


def test_other_settings_of_a_method_make_its_students_anew_alone(project, trained, capsys):
    shadow.make_shadows(params_of(project, 2, ["kd", "rkl"]), project)
    recipes = load_params(project.params).kd.recipes
    trained.clear()
    shadow.make_shadows(params_of(project, 2, ["kd", "rkl"], recipes=recipes | {"rkl": {"lr": 0.5}}), project)
    assert trained == [(0, ("rkl",)), (1, ("rkl",))]
    assert "shadow: other settings, data or bases: rkl made anew" in capsys.readouterr().err


def test_code_that_trains_alike_keeps_what_there_is(project, trained, monkeypatch, capsys):
    shadow.make_shadows(params_of(project, 4, ["kd"]), project)
    monkeypatch.setattr(shadow.SourceTree, "fingerprint", lambda *_: "other")
    trained.clear()
    shadow.make_shadows(params_of(project, 4, ["kd"]), project)
    assert trained == [(0, ("kd",))]  # one model was made again, and is what was kept
    assert capsys.readouterr().err == ""
    trained.clear()
    shadow.make_shadows(params_of(project, 4, ["kd"]), project)
    assert trained == []


def test_code_that_trains_otherwise_makes_all_anew(project, trained, monkeypatch, capsys):
    shadow.make_shadows(params_of(project, 4, ["kd"]), project)
    kept = read_parquet(project.shadow / "kd.parquet")
    write_parquet(kept.assign(**{"loss.0": kept["loss.0"] + 1.0}), project.shadow / "kd.parquet")
    monkeypatch.setattr(shadow.SourceTree, "fingerprint", lambda *_: "other")
    trained.clear()
    shadow.make_shadows(params_of(project, 4, ["kd"]), project)
    assert sorted(trained) == [(0, ("kd",)), (1, ("kd",)), (2, ("kd",)), (3, ("kd",))]
    assert "shadow: the code trains otherwise: kd made anew" in capsys.readouterr().err


def test_none_are_asked_for(project, trained):
    shadow.make_shadows(params_of(project, 0, ["kd"]), project)
    assert trained == [] and json.loads((project.shadow / "report.json").read_text()) == {"models": 0}
    shadow.make_shadows(params_of(project, 2, ["kd"]), project)
    before = (project.shadow / "report.json").read_bytes()
    shadow.make_shadows(params_of(project, 0, ["kd"]), project)
    assert (project.shadow / "report.json").read_bytes() == before


def test_tables_of_other_records_are_refused(project, trained):
    shadow.make_shadows(params_of(project, 2, ["kd"]), project)
    table = read_parquet(project.shadow / "kd.parquet")
    write_parquet(table.iloc[:-1], project.shadow / "kd.parquet")
    with pytest.raises(KdleakError, match=r"holds other records than data/records\.parquet"):
        shadow.make_shadows(params_of(project, 2, ["kd"]), project)


def test_a_model_that_is_not_there_is_named(tmp_path):
    store = ShadowStore(tmp_path, ["a"])
    store.add(0, {"kd": {"loss": np.zeros(1), "ez": np.zeros(1)}})
    with pytest.raises(KdleakError, match="holds no shadow model 1"):
        store.values("kd", "loss", 2)


def test_a_shadow_teacher_is_trained_on_its_half_and_no_other_private_record(project, monkeypatch):
    """The real trainings, one model: who saw what, and scores of every record under teacher and students."""
    seen = {}

    def spy(module, name):
        real = getattr(module, name)

        def wrapped(*arguments, **options):
            roles = read_parquet(arguments[-1].records).groupby("role")["record_id"].agg(set).to_dict()
            seen[name, arguments[0] if name == "make_student" else ""] = (roles, arguments[-2].seed)
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, wrapped)

    spy(shadow_models, "fine_tune_teacher")
    spy(shadow_models, "make_student")
    params = load_params(project.params)
    frame = read_parquet(project.records)
    universe = sorted(frame.loc[frame["role"].isin(["private", "heldout"]), "record_id"])
    inside = np.arange(24) % 2 == 0
    scores = shadow_models.shadow_model(3, inside, ("kd", "sft", "regularise=0.5"), params, project.root)
    expected = {name for name, chosen in zip(universe, inside, strict=True) if chosen}
    for roles, seed in seen.values():
        assert roles["private"] == expected and roles["heldout"] == set(universe) - expected
        assert roles["public"] == set(frame.loc[frame["role"] == "public", "record_id"])
        assert seed != params.seed
    assert set(seen) == {("fine_tune_teacher", ""), ("make_student", "kd"), ("make_student", "sft")}
    assert set(scores) == {"teacher", "kd", "sft", "regularise=0.5"}
    assert not np.array_equal(scores["regularise=0.5"]["loss"], scores["teacher"]["loss"])
    for statistics in scores.values():
        assert all(values.shape == (24,) and np.isfinite(values).all() for values in statistics.values())
    assert not (project.root / ".kdleak" / "shadow" / "3").exists()
    again = shadow_models.shadow_model(3, inside, ("kd",), params, project.root)
    assert np.array_equal(again["teacher"]["loss"], scores["teacher"]["loss"])
    assert np.array_equal(again["kd"]["ez"], scores["kd"]["ez"])


def test_another_teacher_takes_every_student_along_and_another_seed_begins_anew(project, trained, capsys):
    shadow.make_shadows(params_of(project, 2, ["kd", "rkl"]), project)
    params = params_of(project, 2, ["kd"])
    longer = params.model_copy(update={"teacher": params.teacher.model_copy(update={"epochs": 9})})
    trained.clear()
    shadow.make_shadows(longer, project)
    assert trained == [(0, ("kd",)), (1, ("kd",))] and not (project.shadow / "rkl.parquet").exists()
    records = read_parquet(project.records)
    roles = records["role"].replace({"public": "heldout", "heldout": "public"})
    write_parquet(records.assign(role=roles), project.records)  # as another seed draws others
    trained.clear()
    shadow.make_shadows(longer.model_copy(update={"seed": 7}), project)
    assert trained == [(0, ("kd",)), (1, ("kd",))]
    assert "other settings, data or bases: teacher, kd made anew" in capsys.readouterr().err


def test_control_arms_are_added_and_their_defence_is_theirs_alone(project, trained, monkeypatch):
    shadow.make_shadows(params_of(project, 2, ["kd"]), project)
    params = params_of(project, 2, ["kd"])
    told = []
    monkeypatch.setattr(shadow, "shadow_report", lambda *given: told.append(given) or {})
    armed = params.model_copy(update={"shadow": params.shadow.model_copy(update={"arms": ["regularise=0.2"]})})
    trained.clear()
    shadow.make_shadows(armed, project)
    assert trained == [(0, ("regularise=0.2",)), (1, ("regularise=0.2",))]
    assert list(told[0][0]) == ["teacher", "kd", "regularise=0.2"] and told[0][2] == ["regularise=0.2"]
    other = armed.model_copy(update={"shadow": params.shadow.model_copy(update={"arms": ["regularise=0.3"]})})
    trained.clear()
    shadow.make_shadows(other, project)
    assert trained == [(0, ("regularise=0.3",)), (1, ("regularise=0.3",))]


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("erly_stop=1", "shadow.arms: 'erly_stop' is no defence of a teacher's training; did you mean 'early_stop'"),
        ("top_k=8", "shadow.arms: 'top_k' is no defence of a teacher's training"),
        ("regularise=2", r"shadow.arms, regularise=2: defence.label_smoothing"),
    ],
)
def test_an_arm_that_cannot_be_is_refused(project, arm, message):
    with pytest.raises(KdleakError, match=message):
        of_arm(arm, load_params(project.params))


def test_the_no_kd_control_alone_needs_no_teacher(project, trained):
    shadow.make_shadows(params_of(project, 2, ["sft", "kd"]), project)
    trained.clear()
    shadow.make_shadows(params_of(project, 2, ["sft"]), project)
    assert trained == []
