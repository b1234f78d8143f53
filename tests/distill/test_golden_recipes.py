"""`kdleak family` and the published protocol, against every recipe of the scripts (shared golden/recipes.json)."""

from __future__ import annotations

import json

import pytest

from kdleak.distill.recipes import run_options
from kdleak.distill.registry import Text
from kdleak.models.families import load_family
from tests.support.distillation import DEFAULT, ROOT
from tests.support.distillation import params as small_params
from tests.support.shared import shared

FAMILIES = {"gpt2": "gpt2", "opt": "opt", "llama": "llama2"}
SIZES = {"1.3B": "1.3b", "0.3B": "350m", "0.1B": "125m", "3B": "3b"}
METHODS = {"student_ref_sft": "sft", **{m: m for m in ("kd", "seqkd", "imitkd", "gkd", "distillm", "minillm")}}
ROWS = [
    (family, size, method)
    for family, sizes in {
        "gpt2": ("large", "medium", "base"),
        "opt": ("1.3B", "0.3B", "0.1B"),
        "llama": ("3B",),
    }.items()
    for size in sizes
    for method in METHODS
    if (family, method) != ("llama", "student_ref_sft")  # there is no such script
]


def script(family: str, size: str, method: str) -> dict:
    """A row of the golden table, by column."""
    content = json.loads((shared("golden") / "recipes.json").read_text())
    for row in content["effective"]:
        if row[:3] == [family, size, method]:
            return dict(zip(content["effective_columns"], row, strict=True))
    raise AssertionError(f"no row {family} {size} {method}")


def published(family: str, size: str, method: str):
    """The options that our run has under the published protocol with the family's settings, and these."""
    settings = load_family(ROOT / "families.yaml", FAMILIES[family]).settings(SIZES.get(size, size))
    params = small_params(**settings, **{"kd.protocol": "as_published"})
    return run_options(METHODS[method], params.kd), params


@pytest.mark.parametrize(("family", "size", "method"), ROWS)
def test_a_recipe_is_that_of_the_script(family, size, method):
    expected, (ours, params) = script(family, size, method), published(family, size, method)
    assert (ours.lr, ours.batch_size, ours.epochs) == (expected["lr"], expected["batch-size"], expected["epochs"])
    assert (ours.lm_weight > 0) is (expected["lm-data-dir"] is not None)
    assert ours.starts_from == "base"
    assert (params.model.max_tokens, params.model.max_prompt_tokens) == (expected["max-length"], 256)
    assert params.optimizer.warmup == 0 and params.optimizer.max_grad_norm == expected["clip-grad"]
    if method != "minillm":
        assert params.optimizer.weight_decay == expected["weight-decay"]
        assert params.optimizer.min_lr == expected["lr-min"]
    if method in ("imitkd", "gkd"):
        assert ours.student_fraction == expected["mixed-alpha"] and ours.replay_capacity == expected["capacity"]
    if method in ("kd", "seqkd"):
        assert ours.loss == "fkl" and (ours.kd_ratio or 1.0) == expected["kd-ratio"]
    if method == "distillm" and expected["type"] == "srkl-aesop":  # plain skew reverse KL to the code
        assert (ours.loss, ours.text, ours.alpha) == ("srkl", Text.REFERENCES, expected["skew-alpha"])
        assert 23 in ours.defects
    elif method == "distillm":
        assert expected["type"] == "adaptive-srkl"
        found = (ours.threshold, ours.tolerance, ours.replay, ours.replay_capacity, ours.alpha)
        columns = ("init-threshold", "loss-eps", "replay-ratio", "capacity", "skew-alpha")
        assert found == tuple(expected[c] for c in columns)
    if method == "minillm":
        assert ours.steps == expected["total-iters"] and ours.optimizer["schedule"] == "constant"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_teachers_recipe_is_that_of_the_script(family):
    expected, teacher = script(family, "teacher", "teacher_sft"), published(family, ROWS_SIZE[family], "kd")[1].teacher
    assert (teacher.lr, teacher.batch_size, teacher.epochs) == tuple(
        expected[c] for c in ("lr", "batch-size", "epochs")
    )


ROWS_SIZE = {family: size for family, size, _ in ROWS}


def test_some_recipes_carried_over():
    """For every checkout: study 265e00b, scripts/model_family_6k."""
    assert DEFAULT["kd"]["grid"] == "controlled"
    for row, lr, batch in (
        (("gpt2", "base", "seqkd"), 5e-4, 16),
        (("gpt2", "base", "student_ref_sft"), 5e-5, 4),
        (("opt", "0.1B", "distillm"), 5e-5, 16),
        (("opt", "0.1B", "minillm"), 5e-6, 4),
        (("llama", "3B", "kd"), 1e-5, 4),
    ):
        ours, _ = published(*row)
        assert (ours.lr, ours.batch_size, ours.epochs) == (lr, batch, 5 if row[2] == "student_ref_sft" else 10)
