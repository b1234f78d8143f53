"""A project of a few dozen records with canaries, whose stages run under a defence in a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdleak.config.schema import Params
from kdleak.core.files import read_json
from kdleak.core.paths import Project
from kdleak.data.canaries import write_canaries
from kdleak.defend.defences import DEFENCES
from kdleak.defend.dp import PrivateTraining
from kdleak.distill.recipes import run_options
from kdleak.distill.registry import Method
from kdleak.pipeline.distill import make_student
from kdleak.pipeline.teacher import fine_tune_teacher
from kdleak.pipeline.text import write_training_text
from tests.support.distillation import params, untrained

#: Sizes of the canaries and of the teacher's training.
SMALL = {"canaries.each": 1, "canaries.repetitions": [1, 3], "teacher.epochs": 3, "teacher.batch_size": 4}


def needs_accountant(name: str) -> None:
    """Skip the test, saying so, where the defence `name` accounts for privacy and Opacus is not installed."""
    if issubclass(DEFENCES[name], PrivateTraining):
        pytest.importorskip("opacus", reason="needs Opacus: pip install 'kdleak[dp]'")


def settings(name: str = "none", **changes: object) -> Params:
    """Small parameters under the defence `name`; `changes` by dotted key, knobs without their section."""
    knobs = {key if "." in key else f"defence.{key}": value for key, value in changes.items()}
    return params(**{**SMALL, "defence.name": name, **knobs})


def defended_project(folder: Path) -> Project:
    """Untrained models, records and canaries."""
    folder.mkdir(parents=True, exist_ok=True)
    made = untrained(folder)
    write_canaries(settings().canaries, 0, made)
    return made


def teacher_of(project: Project, name: str = "none", **changes: object) -> tuple[bytes, dict]:
    """(weights, training.json) of the teacher stage."""
    fine_tune_teacher(settings(name, **changes), project)
    return weights(project, "teacher"), read_json(project.training("teacher"))


def student_of(project: Project, name: str = "none", method: str = "kd", **changes: object) -> tuple[bytes, dict]:
    """(weights, training.json) of the stages text and distill."""
    write_training_text(method, settings(name, **changes), project)
    make_student(method, settings(name, **changes), project)
    return weights(project, method), read_json(project.training(method))


def weights(project: Project, name: str) -> bytes:
    return (project.model(name) / "model.safetensors").read_bytes()


def recipe_of(method: str) -> Method:
    """The options that a run of `method` goes by."""
    return run_options(method, settings().kd)
