"""DP-SGD as a stage runs it: Poisson sampling, constant normalisers, and where it is the plain training."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from kdleak.core.errors import KdleakError
from kdleak.core.variants import BASELINE
from kdleak.data.encoding import EncodedRecord
from kdleak.defend.defences import DEFENCES
from kdleak.training.batch_sources import FixedBatches, PoissonBatches
from kdleak.training.finetune import cross_entropy
from kdleak.training.gradient_rules import ClipAndNoise
from kdleak.training.loop import Recipe, train
from tests.support.defending import defended_project, recipe_of, student_of, teacher_of
from tests.support.tiny_models import FAMILIES, random_records, tiny_model

RECORDS = random_records(40, longest=12)
needs_opacus = pytest.importorskip("opacus", reason="needs Opacus: pip install 'kdleak[dp]'")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return defended_project(tmp_path_factory.mktemp("private"))


def test_every_record_is_in_every_batch_with_one_probability_whatever_the_others_do():
    source = PoissonBatches(RECORDS, 4, seed=1)
    assert (source.rate, source.steps_per_epoch) == (0.1, 10)
    drawn = np.zeros((6000, 40))
    for step in range(6000):
        drawn[step, source.indices(step)] = 1
    error = 5 * math.sqrt(0.1 * 0.9 / 6000)
    assert np.abs(drawn.mean(axis=0) - 0.1).max() < error
    together = (drawn.T @ drawn) / 6000
    assert np.abs(together[~np.eye(40, dtype=bool)] - 0.01).max() < 5 * math.sqrt(0.01 / 6000)
    sizes = drawn.sum(axis=1)
    assert sizes.var() == pytest.approx(40 * 0.1 * 0.9, rel=0.1)  # binomial: no shuffled epoch has any spread
    assert [PoissonBatches(RECORDS, 4, seed=1).indices(step) for step in (7, 3)] == [
        source.indices(7),
        source.indices(3),
    ]
    assert source.indices(7) != PoissonBatches(RECORDS, 4, seed=2).indices(7)
    assert PoissonBatches(RECORDS[:3], 4, seed=1).rate == 1.0


def test_a_step_without_a_record_adds_noise_alone():
    source = PoissonBatches(RECORDS, 1, seed=1)
    empty = next(step for step in range(200) if not source.indices(step))
    batch = source.batch(None, empty)
    assert len(batch.input_ids) == len(batch.targets) == 0
    rule, model = ClipAndNoise(1.0, 2.0, 1.0, 10.0), tiny_model(layers=1)
    parameters = list(model.parameters())
    assert rule.parts(batch, None) == []
    rule.finish(parameters, empty)
    drawn = torch.cat([p.grad.flatten() for p in parameters])
    assert drawn.std().item() == pytest.approx(2.0, rel=0.05)
    train(model, source, cross_entropy, Recipe(lr=1e-3, epochs=1, batch_size=1), seed=1, rule=rule)
    silent = ClipAndNoise(1.0, 0.0, 1.0, 10.0)
    history = train(model, source, cross_entropy, Recipe(lr=1e-3, epochs=1, batch_size=1), seed=1, rule=silent)
    assert all(math.isfinite(value) for value in history[0].values())


@pytest.mark.parametrize("family", FAMILIES)
def test_without_bound_and_noise_the_same_batches_give_the_same_bytes(family):
    """Records with as many response tokens in each batch, so that the constant normaliser is the batch's own."""
    generator = np.random.default_rng(0)
    records = [
        EncodedRecord(str(i), tuple(generator.integers(1, 90, 3 + i % 5).tolist()),
                      tuple(generator.integers(1, 90, 6).tolist()), 6)
        for i in range(12)
    ]  # fmt: skip
    plain, private = (tiny_model(family, seed=1) for _ in range(2))
    recipe = Recipe(lr=1e-3, epochs=2, batch_size=4, micro_batch_tokens=1)
    source = FixedBatches(records, 4, seed=1)
    expected = train(plain, source, cross_entropy, recipe, seed=1)
    rule = ClipAndNoise(math.inf, 0.0, expected_batch=4.0, record_tokens=6.0)
    assert train(private, source, cross_entropy, recipe, seed=1, rule=rule) == expected
    for one, other in zip(plain.parameters(), private.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_history_has_the_token_mean_whatever_the_normaliser():
    model, source = tiny_model(layers=1), FixedBatches(RECORDS, 8, seed=1)
    recipe = Recipe(lr=1e-9, epochs=1, batch_size=8, min_lr=0.0, dropout=False)
    plain = train(copy.deepcopy(model), source, cross_entropy, recipe, seed=1)
    private = train(model, source, cross_entropy, recipe, seed=1, rule=ClipAndNoise(1.0, 0.0, 3.0, 50.0))
    assert private[0]["loss"] == pytest.approx(plain[0]["loss"], rel=1e-5)


def test_no_noise_and_no_bound_is_no_defence(project):
    assert teacher_of(project, "dp_sgd", sigma=0.0, clip=0.0)[0] == teacher_of(project)[0]
    clipped, record = teacher_of(project, "dp_sgd", sigma=0.0, clip=0.1)
    assert clipped != teacher_of(project)[0] and record["defence"]["epsilon"] is None


def test_the_teachers_training_says_its_epsilon_and_whose_it_is(project, capsys):
    first, record = teacher_of(project, "dp_sgd")
    said = record["defence"]
    assert (said["name"], said["acts_on"], said["covers"]) == ("dp_sgd", "teacher", "private")
    rows = record["records"] + record["canary_rows"]
    assert said["sample_rate"] == pytest.approx(4 / rows) and said["steps"] == 3 * math.ceil(rows / 4)
    assert said["delta"] == pytest.approx(rows**-1.1)
    assert {name: group["size"] for name, group in said["groups"].items()} == {
        "near-duplicates": 2, "planted canaries": 3,
    }  # fmt: skip
    assert (
        said["epsilon"] < said["groups"]["near-duplicates"]["epsilon"] < said["groups"]["planted canaries"]["epsilon"]
    )
    assert f"dp_sgd: ε {said['epsilon']:.2f} at δ" in capsys.readouterr().err
    assert teacher_of(project, "dp_sgd")[0] == first
    assert teacher_of(project, "dp_sgd", sigma=0.9)[0] != first


def test_a_private_student_says_that_its_epsilon_is_not_the_teachers(project, capsys):
    record = student_of(project, "dp_student")[1]
    assert "; it says nothing of the teacher's private data" in capsys.readouterr().err
    assert (record["defence"]["covers"], record["defence"]["does_not_cover"]) == (
        "public", "the teacher's private data",
    )  # fmt: skip
    assert record["starts_from"] == "base"
    assert student_of(project, "none")[1]["starts_from"] == BASELINE


def test_a_private_student_of_two_texts_a_prompt_counts_them_as_a_group(project):
    twice = {"kd.recipes.seqkd.decoding": "sample", "kd.recipes.seqkd.samples": 2}
    record = student_of(project, "dp_student", "seqkd", **twice)[1]
    assert record["defence"]["groups"]["one prompt"]["size"] == 2


@pytest.mark.parametrize("method", ["imitkd", "gkd", "distillm", "minillm"])
def test_a_method_whose_batches_are_more_than_records_cannot_be_private(method, project):
    with pytest.raises(
        KdleakError, match=f"'dp_student' cannot train '{method}', whose batches hold more than records"
    ):
        student_of(project, "dp_student", method)
    with pytest.raises(KdleakError, match="without an LM corpus"):
        DEFENCES["dp_student"]().method(recipe_of("kd").model_copy(update={"lm_weight": 1.0}))
