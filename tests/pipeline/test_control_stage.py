"""The control's teacher: the teacher's base, recipe and size, and not one member."""

from __future__ import annotations

import pytest

from kdleak.core.files import read_json
from kdleak.core.variants import CONTROL, TEACHER
from kdleak.data.canaries import write_canaries
from kdleak.data.records import read_role
from kdleak.pipeline import teacher
from kdleak.pipeline.control import make_control
from kdleak.pipeline.passes import audited_records, read_passes
from tests.support.distillation import SIZES, params, untrained


@pytest.fixture
def project(tmp_path):
    made = untrained(tmp_path)
    made.base_external.symlink_to(made.base_student)
    settings = params()
    write_canaries(settings.canaries.model_copy(update={"each": 1, "references": 3}), settings.seed, made)
    return made


def test_its_teacher_is_trained_as_the_teacher_is_on_as_many_records_and_on_no_member(project, monkeypatch):
    given = []
    train = teacher.run_training

    def record(model, records, *arguments, **options):
        given.append((records, arguments[1:], options["name"]))
        return train(model, records, *arguments, **options)

    monkeypatch.setattr(teacher, "run_training", record)
    settings = params(**{"teacher.epochs": 1})
    teacher.fine_tune_teacher(settings, project)
    make_control(settings, project)
    (audited, *how), (clean, *same) = given
    assert how == same and len(audited) == len(clean) == SIZES["private"] + 3 * (1 + 4 + 16) // 3
    members, auxiliary = (set(read_role(project.records, role)["record_id"]) for role in ("private", "auxiliary"))
    seen = {r.record_id for r in clean} - {r.record_id for r in audited}
    assert len(seen) == SIZES["private"] and seen <= auxiliary
    assert not {r.record_id for r in clean} & {*members, *read_role(project.records, "heldout")["record_id"]}


def test_it_leaves_its_passes_and_how_it_was_trained_and_no_model(project):
    make_control(params(**{"teacher.epochs": 1}), project)
    statistics = read_passes(project.passes(CONTROL)).audited.statistics
    assert list(statistics.record_ids) == list(audited_records(project)["record_id"])
    assert read_json(project.training(CONTROL.teacher))["records"] == SIZES["private"]
    assert read_json(project.training(CONTROL))["method"] == "kd"
    assert not list((project.root / "models" / "variants").rglob("*.safetensors"))
    assert project.model(TEACHER).is_dir() and not (project.root / ".kdleak/resume").exists()


def test_its_student_never_opens_the_audited_teacher(project):
    (project.model(TEACHER) / "model.safetensors").unlink()
    make_control(params(**{"teacher.epochs": 1}), project)
    assert project.passes(CONTROL).is_file()
