"""The section on shadow models shows what their report says."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np

from kdleak.core.files import json_text
from kdleak.report.study.sections.shadow import by_many_trainings
from kdleak.shadow.report import settings_of, shadow_report
from tests.shadow.test_transfer import simulated
from tests.support.study_results import params_of


def content(shadow):
    return by_many_trainings(SimpleNamespace(study=SimpleNamespace(shadow=shadow, params=params_of())))


def test_attacks_and_transfer_are_shown_with_their_intervals():
    student, teacher, inside = simulated(0, pairs=4, n=80)
    scores = {
        name: {"loss": each, "ez": 1 / (1 + np.exp(-each))} for name, each in (("teacher", teacher), ("kd", student))
    }
    said = settings_of(params_of()) | shadow_report(scores, inside)
    shown = content(json.loads(json_text(said, digits=6)))
    attacks, transfer = (block for block in shown.blocks if hasattr(block, "rows"))
    assert [row[0] for row in attacks.rows] == ["teacher", "KD"] and transfer.rows[0][-1] == "could not run"
    tau = said["transfer"]["kd"]["loss"]["tau"]
    assert transfer.rows[0][1].startswith(f"{tau['value']:.2f}"[1:]) and "KD passes on" in shown.lead
    assert "too few false positives" in attacks.rows[0]
    assert not any("other settings" in str(block) for block in shown.blocks)
    other = content(json.loads(json_text(said | {"defence": "dp_sgd"}, digits=6)))
    assert "of other settings than the rest of the page: defence dp_sgd" in str(other.blocks[0])


def test_students_stand_beside_control_arms_as_useful_as_they():
    student, teacher, inside = simulated(0, pairs=4, n=80)
    arm = simulated(5, pairs=4, n=80)[0] + 0.1
    models = {"teacher": teacher, "kd": student, "early_stop=1": arm}
    scores = {name: {"loss": each, "ez": 1 / (1 + np.exp(-each))} for name, each in models.items()}
    said = settings_of(params_of()) | shadow_report(scores, inside, ["early_stop=1"])
    shown = content(json.loads(json_text(said, digits=6)))
    arms, students = [block for block in shown.blocks if hasattr(block, "rows")][-2:]
    assert [row[0] for row in arms.rows] == ["teacher", "early_stop, 1"] and students.rows[0][0] == "KD"
    assert "early_stop" in students.header[-1] and "[" in students.rows[0][-1]


def test_without_shadow_models_the_command_is_named():
    for nothing in (None, {"models": 0}):
        assert "shadow.models=16" in str(content(nothing).blocks[0])
