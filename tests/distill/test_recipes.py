"""Recipes: what params.yaml may say of a method, what a protocol and a fraction make of it, and how errors read."""

from __future__ import annotations

import copy

import pytest

from kdleak.config.load import parse_params
from kdleak.core.errors import KdleakError
from kdleak.core.paths import Project
from kdleak.distill.methods import METHODS
from kdleak.distill.recipes import check_methods, recipe, run_options
from kdleak.distill.registry import Text
from tests.config.test_config import changed
from tests.support.distillation import DEFAULT, encoded, made, params, trained_on, untrained


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return untrained(tmp_path_factory.mktemp("project"))


def run(method: str, **changes: object):
    return run_options(method, params(**changes).kd)


def checked(content: dict) -> None:
    check_methods(parse_params(content))


def test_the_projects_own_recipes_are_valid():
    checked(DEFAULT)
    assert set(DEFAULT["kd"]["recipes"]) <= set(METHODS)


def test_a_recipe_needs_to_say_only_what_differs():
    content = copy.deepcopy(DEFAULT)
    content["kd"]["recipes"] = {"gkd": {"beta": 0.5}}
    checked(content)
    kd = parse_params(content).kd
    assert recipe("gkd", kd) == METHODS["gkd"](beta=0.5)
    assert all(recipe(method, kd) == METHODS[method]() for method in METHODS if method != "gkd")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("kd.method", "rlk", "kd.method: 'rlk' is unknown; did you mean 'rkl'?"),
        ("kd.method", "kd; touch x", "kd.method: 'kd; touch x' is unknown"),
        ("study.methods", ["rkl"], "kd.method 'kd' is not in study.methods; add -S 'study.methods=[rkl,kd]'"),
        ("study.methods", ["kd", "rlk"], "study.methods.1: 'rlk' is unknown; did you mean 'rkl'?"),
        ("kd.recipes.kdd", {"lr": 0.1, "epochs": 1, "batch_size": 1}, "unknown method 'kdd'; did you mean 'kd'?"),
        ("kd.recipes.kd.epoch", 3, "kd.recipes.kd.epoch: unknown key; did you mean 'epochs'?"),
        ("kd.recipes.gkd.bata", 0.5, "kd.recipes.gkd.bata: unknown key; did you mean 'beta'?"),
        ("kd.recipes.kd.beta", 0.5, "kd.recipes.kd.beta: unknown key; valid: lr, epochs, batch_size"),
        ("kd.recipes.kd.epochs", 2.5, "kd.recipes.kd.epochs: input should be a valid integer"),
        (
            "kd.recipes.gkd.weight",
            0.9,
            "kd.recipes.gkd.weight: has become 'beta', as in TRL, which is 1 - weight; change its name and value",
        ),
        ("kd.recipes.jsd.beta", 1.0, "kd.recipes.jsd.beta: input should be less than 1"),
        ("kd.recipes.distillm.alpha", 1.5, "kd.recipes.distillm.alpha"),
        ("kd.recipes.rkl.lr", 1e-9, "kd.recipes.rkl.lr is below optimizer.min_lr; the schedule would rise"),
        ("study.lr_multipliers", [1e-6, 3], "1e-06 times the lr of 'kd' is out of bounds; it must lie between"),
    ],
)
def test_a_wrong_recipe_is_named_with_its_remedy(key, value, words):
    with pytest.raises(KdleakError) as caught:
        checked(changed(key, value))
    message = str(caught.value)
    assert message.startswith("params.yaml: ") and words in message and "\n" not in message


def test_a_method_that_there_is_not_is_named():
    with pytest.raises(KdleakError, match="unknown method 'gdk'; did you mean 'gkd'"):
        recipe("gdk", params().kd)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("kd.protocol", "published", "did you mean 'as_published'?"),
        ("kd.student_fraction", 2, "kd.student_fraction"),
        ("generation.max_new_tokens", 0, "generation.max_new_tokens"),
    ],
)
def test_a_wrong_option_is_named(key, value, words):
    with pytest.raises(KdleakError) as caught:
        parse_params(changed(key, value))
    assert words in str(caught.value) and "\n" not in str(caught.value)


# The two protocols.

PUBLISHED = {"kd.protocol": "as_published"}


def test_each_published_defect_is_reproduced_and_named(project, monkeypatch):
    seqkd, kd = run("seqkd", **PUBLISHED), run("kd", **PUBLISHED)
    assert (seqkd.text, seqkd.loss, set(seqkd.defects)) == (Text.REFERENCES, "fkl", {1})
    assert seqkd.lr == pytest.approx(10 * kd.lr) and not kd.defects
    assert set(run("minillm", **PUBLISHED).defects) == {2, 3}
    private = {r.prompt for r in encoded(project, "private")}
    assert private <= {r.prompt for r in trained_on("minillm", project, monkeypatch, **PUBLISHED)}
    for method in ("imitkd", "gkd", "distillm"):
        published = run(method, **PUBLISHED)
        assert set(published.defects) == {3, 4} and published.starts_from == "base"
        assert run(method).starts_from == "sft" and not run(method).defects
    sft = run("sft", **PUBLISHED)
    assert (set(sft.defects), sft.epochs, sft.lr) == ({7}, 1, kd.lr)


def test_the_runs_record_names_its_defects(project):
    record = made("gkd", project, **PUBLISHED)
    assert record["protocol"] == "as_published" and record["starts_from"] == "base"
    assert set(record["defects"]) == {"3", "4"} and "init checkpoint" in record["defects"]["3"]


def test_the_corrected_no_kd_baseline_has_the_budget_of_kd():
    sft, kd = (run_options(method, parse_params(DEFAULT).kd) for method in ("sft", "kd"))
    assert (sft.lr, sft.epochs, sft.batch_size) == (kd.lr, kd.epochs, kd.batch_size)


# The share of student-written data.


@pytest.mark.parametrize("method", ["kd", "rkl", "jsd", "sfkl", "srkl", "tvd", "imitkd", "gkd"])
def test_student_fraction_sweeps_the_share_for_any_divergence(method):
    for fraction in (0.0, 0.3, 1.0):
        swept = run(method, **{"kd.student_fraction": fraction})
        assert swept.options()["student_fraction"] == fraction
        assert swept.loss == METHODS[method].loss and swept.starts_from == "sft"
    assert run("sft", **{"kd.student_fraction": 0.3}) == run("sft")


def test_a_swept_share_is_what_the_student_is_trained_on(project):
    for fraction in (0.0, 1.0):
        record = made("rkl", project, **{"kd.student_fraction": fraction})
        assert [entry["student_written"] for entry in record["history"]] == [fraction, fraction]


@pytest.mark.parametrize("method", ["seqkd", "distillm", "minillm"])
def test_a_technique_that_decides_its_own_data_takes_no_student_fraction(method):
    with pytest.raises(KdleakError, match=f"student_fraction: '{method}' decides itself"):
        check_methods(params(**{"kd.student_fraction": 0.5, "kd.method": method}))
