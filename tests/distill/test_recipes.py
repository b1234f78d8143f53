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
from kdleak.inference.generation import Sampling, generate
from kdleak.models.checkpoints import load_model, load_tokenizer
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
    assert seqkd.lr == run("seqkd").lr and not kd.defects and kd.starts_from == "base"
    assert set(run("minillm", **PUBLISHED).defects) == {2, 3, *range(18, 23)}
    private = {r.prompt for r in encoded(project, "private")}
    assert private <= {r.prompt for r in trained_on("minillm", project, monkeypatch, **PUBLISHED)}
    for method in ("imitkd", "gkd", "distillm"):
        published = run(method, **PUBLISHED)
        assert set(published.defects) == {3, 4} | {"imitkd": {17}, "gkd": {16}}.get(method, set())
        assert published.starts_from == "base"
        assert run(method).starts_from == "sft" and not run(method).defects
    sft = run("sft", **PUBLISHED)
    assert (set(sft.defects), sft.epochs, sft.lr) == ({7}, 1, kd.lr)


def test_the_runs_record_names_its_defects(project):
    record = made("gkd", project, **PUBLISHED)
    assert record["protocol"] == "as_published" and record["starts_from"] == "base"
    assert set(record["defects"]) == {"3", "4", "16"} and "init checkpoint" in record["defects"]["3"]


def test_what_the_published_code_does_otherwise_is_what_runs():
    published = {m: run(m, **PUBLISHED) for m in ("gkd", "imitkd", "distillm", "minillm", "kd")}
    assert [published[m].replay_capacity for m in ("gkd", "imitkd")] == [1000, 1000]
    assert {m: options.lm_weight for m, options in published.items()} == {
        "gkd": 0.0, "imitkd": 1.0, "distillm": 1.0, "minillm": 1.0, "kd": 0.0
    }  # fmt: skip
    assert published["minillm"].steps == 5000 and published["minillm"].optimizer["weight_decay"] == 1e-6
    assert run("minillm").optimizer == {"betas": (0.9, 0.95), "schedule": "constant", "warmup": 0.02, "dropout": False}
    swept = run("rkl", **PUBLISHED, **{"kd.student_fraction": 0.5})
    assert swept.replay_capacity == 1000 and run("rkl", **{"kd.student_fraction": 0.5}).replay_capacity is None


# The grids.


def test_in_the_controlled_grid_start_steps_and_corpus_are_the_same_for_all():
    runs = [run(m) for m in METHODS if m != "sft"]
    assert {(r.starts_from, r.lm_weight, r.epochs, r.batch_size, r.steps) for r in runs} == {("sft", 0.0, 2, 4, None)}
    assert run("sft").starts_from == "base" and run("sft", **{"kd.start": "baseline"}).starts_from == "base"


def test_in_the_papers_grid_each_has_its_own():
    paper = {m: run(m, **{"kd.grid": "paper"}) for m in METHODS}
    assert {m for m, r in paper.items() if r.starts_from == "sft"} == {"imitkd", "gkd", "distillm", "minillm", "opd"}
    assert {m for m, r in paper.items() if r.lm_weight} == {"distillm", "minillm"}


@pytest.mark.parametrize("grid", ["controlled", "paper"])
def test_a_factor_that_is_set_holds_for_every_method_in_both_grids(grid):
    for m in METHODS.keys() - {"sft"}:
        swept = run(m, **{"kd.grid": grid, "kd.start": "base", "kd.lm_weight": 0.25})
        assert (swept.starts_from, swept.lm_weight) == ("base", 0.25)
        assert run(m, **{"kd.grid": grid, "kd.lm_weight": 0.0}).lm_weight == 0


def test_unequal_budgets_are_refused_in_the_controlled_grid_alone():
    unequal = {"kd.recipes.gkd.epochs": 3}
    words = r"kd.grid controlled: 'gkd' and 'kd' differ in epochs, batch_size or steps of kd.recipes"
    with pytest.raises(KdleakError, match=words):
        check_methods(params(**unequal))
    check_methods(params(**unequal, **{"kd.grid": "paper"}))
    check_methods(params(**unequal, **PUBLISHED))


def test_a_training_ends_after_its_steps(project):
    record = made("kd", project, **{"kd.recipes.kd.steps": 4})
    assert [(e["step"], e["epoch"]) for e in record["history"]] == [(3, 1), (4, 2)] and record["steps"] == 4


def test_a_corpus_stands_beside_any_method(project):
    record = made("kd", project, **{"kd.lm_weight": 0.5, "kd.lm_corpus": "auxiliary"})
    assert record["lm_weight"] == 0.5 and record["corpus_records"] == 12
    assert made("kd", project)["corpus_records"] == 0


# SeqKD's text.


def test_seqkd_trains_on_the_mode_of_the_teacher_or_on_samples_of_it(project, monkeypatch):
    def texts(**changes):
        return [r.response for r in trained_on("seqkd", project, monkeypatch, **changes)]

    mode = {"kd.recipes.seqkd.decoding": "greedy"}
    greedy = texts(**mode)
    assert greedy == texts(**mode, **{"seed": 5}) and len(greedy) == 12
    assert len(texts()) == 12 and texts() == texts(**{"kd.recipes.seqkd.decoding": "sample"}) != greedy
    drawn = texts(**{"kd.recipes.seqkd.decoding": "sample", "kd.recipes.seqkd.samples": 3})
    assert len(drawn) == 36 and len(set(drawn)) > 12
    with pytest.raises(KdleakError, match="samples: greedy decoding writes the same response each time"):
        check_methods(params(**{"kd.recipes.seqkd.samples": 3, "kd.recipes.seqkd.decoding": "greedy"}))
    beam = {"kd.recipes.seqkd.decoding": "beam", "kd.recipes.seqkd.beams": 4}
    teacher, public = load_model(project.model("teacher")), encoded(project, "public")
    how = Sampling(12, temperature=0.0, beams=4)
    expected = generate(teacher, [r.prompt for r in public], how, load_tokenizer(project.base_student).eos_token_id)
    assert texts(**beam) == expected == texts(**beam, **{"seed": 5}) and expected != greedy
    with pytest.raises(KdleakError, match="samples: beam decoding writes the same response each time"):
        check_methods(params(**beam, **{"kd.recipes.seqkd.samples": 3}))


def test_minillm_takes_no_other_temperature(project):
    with pytest.raises(KdleakError, match=r"generation.temperature: 'minillm' takes 1 alone"):
        made("minillm", project, **{"generation.temperature": 0.7})


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
