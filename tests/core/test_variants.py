"""Which folders a run has, and which teacher and baseline stand beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdleak.core.paths import Project
from kdleak.core.variants import BASELINE, CONTROL, TEACHER, Variant

PROJECT = Project(Path("p"))


@pytest.mark.parametrize(
    ("name", "folder"),
    [(TEACHER, "teacher"), (BASELINE, "students/sft"), ("kd", "students/kd"), ("rkl", "students/rkl")],
)
def test_a_default_run_has_the_places_of_its_method(name, folder):
    for run in (name, Variant(name)):
        assert PROJECT.model(run) == Path("p/models") / folder
        assert PROJECT.membership(run) == Path("p/results") / folder / "membership.json"
        assert PROJECT.resume(run) == Path("p/.kdleak/resume") / name


def test_another_learning_rate_has_places_of_its_own_and_shares_the_rest():
    run = Variant("kd", rate=0.5)
    assert PROJECT.membership(run) == Path("p/results/students/kd/runs/rate-0.5/membership.json")
    assert PROJECT.model(run) != PROJECT.model("kd") and PROJECT.resume(run) != PROJECT.resume("kd")
    assert PROJECT.model(run.teacher) == PROJECT.model("teacher") and PROJECT.scores(run.baseline) == PROJECT.scores(
        "sft"
    )
    assert PROJECT.results(Variant("kd", rate=3)).name == "rate-3"


NUMBERS = st.one_of(st.integers(0, 99), st.floats(1e-9, 99, allow_nan=False)) | st.none()
RUNS = st.builds(
    Variant,
    st.sampled_from([TEACHER, "kd", "rkl", "gkd_2"]),
    defence=st.from_regex(r"[a-z][a-z0-9_]*", fullmatch=True) | st.none(),
    shadow=st.integers(0, 99) | st.none(),
    seed=st.integers(0, 99) | st.none(),
    rate=NUMBERS,
    grid=st.sampled_from([None, "controlled", "paper"]),
    fraction=NUMBERS,
    lm_weight=NUMBERS,
)


@given(st.lists(RUNS, unique_by=repr, max_size=30))
def test_different_runs_have_different_places_and_none_lies_in_that_of_another(runs):
    results = [PROJECT.results(run) for run in runs if not run.is_default]
    for places in ([PROJECT.model(run) for run in runs], [PROJECT.resume(run) for run in runs], results):
        assert len(set(places)) == len(places)
        assert not [(one, other) for one in places for other in places if one in other.parents]


def test_no_run_lies_in_the_folder_of_another_ones_checkpoint():
    """A checkpoint is an output of DVC as a folder: no other output may stand in it."""
    runs = [Variant(m, **k) for m in (TEACHER, "kd") for k in ({}, {"seed": 1}, {"shadow": 3}, {"defence": "dp_sgd"})]
    runs += [
        CONTROL,
        CONTROL.teacher,
        Variant("kd", rate=0.5),
        Variant("kd", defence="dp_sgd", seed=1),
        Variant("kd", shadow=3, rate=0.5),
    ]
    results = [PROJECT.results(run) for run in runs if not run.is_default]
    for places in ([PROJECT.model(run) for run in runs], [PROJECT.resume(run) for run in runs], results):
        assert len(set(places)) == len(places)
        assert not [(one, other) for one in places for other in places if one in other.parents]


def test_a_run_names_the_teacher_that_it_learns_from():
    """A seed is of the distillation alone: teacher and baseline are those of the default run."""
    run = Variant("kd", defence="dp_sgd", shadow=3, seed=1, rate=0.5, grid="paper", fraction=1, lm_weight=0.5)
    assert run.teacher == Variant(TEACHER, defence="dp_sgd", shadow=3)
    assert run.baseline == Variant(BASELINE)
    assert run.is_distilled and not run.is_teacher and not run.is_default
    assert run.teacher.is_teacher and not run.teacher.is_distilled and not run.baseline.is_distilled
    assert PROJECT.base(run) == PROJECT.base_student and PROJECT.base(run.teacher) == PROJECT.base_teacher
    assert str(run) == "kd-defence-dp_sgd-shadow-3-seed-1-rate-0.5-grid-paper-fraction-1-lm_weight-0.5"


def test_the_control_is_a_student_of_a_teacher_of_its_own_beside_the_same_baseline():
    assert CONTROL.teacher == Variant(TEACHER, control=True) != Variant(TEACHER)
    assert CONTROL.baseline == Variant(BASELINE) and CONTROL.is_distilled and not CONTROL.is_default
    assert PROJECT.passes(CONTROL) == Path("p/data/passes/control/students/kd/passes.safetensors")
    assert PROJECT.training(CONTROL.teacher) == Path("p/results/control/teacher/training.json")
    assert str(CONTROL) == "kd-control"
