"""What a run was made of, and whether the mechanism that names its method ran."""

from __future__ import annotations

import pytest

from kdleak.core.paths import Project
from kdleak.distill.mechanism import Tally, mechanism_ran
from kdleak.distill.methods import METHODS
from kdleak.training import run as training_run
from tests.support.distillation import made, untrained

FIGURES = {"student_token_share", "replayed_share", "rollout_age_steps", "rollout_rounds", "threshold"}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return untrained(tmp_path_factory.mktemp("project"))


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"sft"}))
def test_every_run_says_what_it_was_made_of(method, project):
    record = made(method, project)
    assert record["realised"].keys() == FIGURES
    assert record["mechanism"]["ran"] is (mechanism_ran(record) is None)
    if method in ("imitkd", "minillm"):
        assert record["mechanism"] == {"ran": True, "why": ""} and record["realised"]["student_token_share"] == 1
    if record["text"] in ("references", "teacher"):
        assert record["realised"]["student_token_share"] == 0 and record["mechanism"]["ran"]


def test_a_loss_that_never_rises_makes_no_distillm(project):
    never = {"kd.recipes.distillm.tolerance": 1e6}
    record = made("distillm", project, **never, **{"kd.recipes.distillm.threshold": 0.0})
    assert record["mechanism"] == {"ran": False, "why": "not DistiLLM here: no student-written token"}
    record = made("distillm", project, **never, **{"kd.recipes.distillm.threshold": 1.0})
    assert record["realised"]["student_token_share"] == 1 and record["realised"]["threshold"] == 1
    why = "not DistiLLM here: its validation loss never rose, so its scheduler never fired"
    assert record["mechanism"] == {"ran": False, "why": why}


def test_minillm_that_rolls_out_once_is_none(project):
    record = made("minillm", project, **{"kd.recipes.minillm.rollouts": 12, "kd.recipes.minillm.inner_epochs": 9})
    assert record["realised"]["rollout_rounds"] == 1 and record["realised"]["rollout_age_steps"] == 5
    assert record["mechanism"]["why"].startswith("not MiniLLM here: it rolled out once")


def test_seqkd_on_references_and_imitkd_without_a_replay_are_none(project):
    record = made("seqkd", project, **{"kd.protocol": "as_published"})
    assert record["mechanism"]["why"] == "not SeqKD here: no text of the teacher"
    record = made("imitkd", project, **{"kd.recipes.imitkd.replay_capacity": 4})
    assert record["mechanism"]["why"] == "not ImitKD here: no text was replayed"
    assert made("gkd", project, **{"kd.recipes.gkd.student_fraction": 0.0})["mechanism"]["ran"]


def test_texts_are_counted_by_token_and_by_age():
    tally = Tally()
    tally.add(30)
    tally.add(10, [0, 3])
    figures = tally.figures()
    assert (figures["student_token_share"], figures["replayed_share"]) == (0.25, 0.5)
    assert figures["rollout_age_steps"] == 3 and Tally().figures()["rollout_age_steps"] is None


def test_minillm_trains_without_dropout_and_the_others_with_it(project, monkeypatch):
    modes = {}

    def train(model, source, objective, recipe, **options):
        modes[len(modes)] = recipe.dropout
        return []

    monkeypatch.setattr(training_run, "train", train)
    made("minillm", project)
    made("gkd", project)
    assert modes == {0: False, 1: True}
