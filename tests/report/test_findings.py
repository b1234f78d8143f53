"""Contrasts of leaks, verdicts on claims, and leaks at equal usefulness."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from kdleak import stats
from kdleak.core.errors import KdleakError
from kdleak.core.variants import Variant
from kdleak.report.study.claims import findings_of
from kdleak.report.study.claims.memorization import measures_disagree
from kdleak.report.study.findings import (
    CONTRADICTED,
    DEPENDS,
    INCONCLUSIVE,
    NOT_RUN,
    REPRODUCED,
    judged,
    together,
)
from kdleak.report.study.matched import Point, at_perplexity, learning_branch, match
from kdleak.report.study.results import PAPER_TECHNIQUES, read_study
from kdleak.stats.contrasts import Contrast, Leak, corrected, leaks
from tests.support.study_results import STRENGTHS, StudyResults, params_of


def sides(seed: int, shift: float, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=n) + shift, rng.normal(size=n)


@given(st.integers(0, 1000), st.floats(-1, 2), st.floats(-1, 2))
@settings(max_examples=20, deadline=None)
def test_a_difference_of_leaks_is_paired_delong(seed, a, b):
    first, second = sides(seed, a), sides(seed + 1, b)
    found = Contrast.of("", Leak.of(*first) - Leak.of(*second))
    known = stats.auc_difference(first, second)
    assert found.value == pytest.approx(known.value)
    assert found.interval == pytest.approx((known.low, known.high))
    assert found.p_value == pytest.approx(known.p_value)


def test_both_sides_of_a_weighted_sum_average_to_its_value():
    leak = Leak.of(*sides(0, 1.0)) * 0.3 + Leak.of(*sides(1, 0.5)) * 0.7
    assert leak.members.mean() == pytest.approx(leak.nonmembers.mean()) == pytest.approx(leak.value)


@given(st.floats(0.001, 0.3), st.floats(0.001, 0.2), st.integers(1, 20))
def test_a_detectable_difference_is_found_with_eighty_percent_power_whatever_was_observed(value, error, tests):
    smallest = Contrast("", value, error, 100).detectable(tests)
    assert smallest == Contrast("", 0.0, error, 100).detectable(tests)
    assert norm.cdf(smallest / error - norm.isf(0.05 / (2 * tests))) == pytest.approx(0.8, abs=1e-3)


def test_without_an_error_no_difference_is_known_to_be_detectable():
    assert math.isnan(Contrast("", 0.1, math.nan, 2).detectable())


def test_leaks_are_of_the_records_that_every_model_defines():
    keys = pd.DataFrame({"record_id": list("abcd"), "role": ["private", "heldout"] * 2, "task": "t"})
    tables = {"x": keys.assign(loss=[1.0, 0, 1, 0]), "y": keys.assign(loss=[np.nan, 0, 1, 0])}
    assert leaks(tables, "loss")["x"].n == 3 and leaks(tables, "zlib") == {}
    with pytest.raises(KdleakError, match="'y' was attacked on other records"):
        leaks({"x": tables["x"], "y": tables["y"].iloc[1:]}, "loss")
    assert leaks({"x": tables["x"][tables["x"]["role"] == "private"]}, "loss") == {}


def test_one_reversed_comparison_contradicts_and_one_open_one_leaves_open():
    sure, reverse, open_ = Contrast("a", 0.1, 0.01, 9), Contrast("b", -0.1, 0.01, 9), Contrast("c", 0.01, 0.01, 9)
    assert together(judged([sure, replace(sure, name="d")])) == REPRODUCED
    assert together(judged([sure, open_])) == INCONCLUSIVE
    assert together(judged([sure, open_, reverse])) == CONTRADICTED
    assert together([]) == INCONCLUSIVE


def test_verdicts_are_corrected_for_the_number_of_comparisons():
    weak = Contrast("", 0.0225, 0.01, 9)  # p = .024 by itself
    assert judged([weak])[0].verdict == REPRODUCED
    assert {c.verdict for c in judged([weak] * 3)} == {INCONCLUSIVE}
    assert corrected([weak] * 3)[0] == pytest.approx(3 * weak.p_value)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> StudyResults:
    return StudyResults(tmp_path_factory.mktemp("study"), n=300)


@pytest.fixture(scope="module")
def verdicts(results) -> dict:
    return {f.claim: f for f in findings_of(read_study(params_of(), results.project))}


def test_planted_effects_are_found(verdicts):
    assert verdicts["1"].verdict == REPRODUCED  # every strength lies above the baseline's
    assert verdicts["2"].verdict == CONTRADICTED  # SeqKD was made to leak less than GKD
    assert verdicts["4"].verdict == NOT_RUN  # no share of student-written data was swept
    assert verdicts["5"].verdict == INCONCLUSIVE  # tasks were made alike
    assert verdicts["7"].verdict == REPRODUCED  # the upper block carries twice the signal


def test_the_objectives_alone_weigh_nothing_in_claims_about_the_papers_techniques(verdicts, results):
    without = {
        f.claim: f for f in findings_of(read_study(params_of(study__methods=list(PAPER_TECHNIQUES)), results.project))
    }
    for claim in ("1", "2", "4", "5", "6", "7"):
        assert verdicts[claim] == without[claim]
    assert verdicts["3"] != without["3"]
    alone = {
        f.claim: f
        for f in findings_of(read_study(params_of(study__methods=["rkl"], kd__method="rkl"), results.project))
    }
    assert "1 of 1 techniques" in alone["1"].answer and alone["2"].verdict == NOT_RUN


def test_what_was_not_run_has_no_verdict_and_says_how_to_run_it(verdicts):
    for claim, key in {"2 at equal utility": "lr_multipliers", "3 at equal utility": "lr_multipliers",
                       "2 in the paper's grid": "grids", "3 in the paper's grid": "grids", "4": "fractions",
                       "LM corpus": "lm_weights"}.items():  # fmt: skip
        assert verdicts[claim].verdict == NOT_RUN and verdicts[claim].runs == 0
        assert f"run `dvc exp run -P -S 'study.{key}=[" in verdicts[claim].answer


def test_a_record_of_a_finding_holds_its_test_and_its_figures(verdicts):
    record = verdicts["2"].record()
    assert len(record["comparisons"]) == 22 and "by loss and ez, AUC" in record["test"] and "22 tests" in record["test"]
    assert all(c["ci95"][0] <= c["difference"] <= c["ci95"][1] for c in record["comparisons"])
    for finding in verdicts.values():
        assert (
            finding.verdict in (REPRODUCED, CONTRADICTED, DEPENDS, INCONCLUSIVE, NOT_RUN)
            and finding.test
            and finding.answer
        )
        assert finding.detectable is None or finding.verdict == INCONCLUSIVE


def test_measures_that_rank_oppositely_are_found_to_disagree(tmp_path):
    results = StudyResults(
        tmp_path, n=300, strengths={k: STRENGTHS[k] for k in ("teacher", "sft", "kd", "gkd", "minillm")}
    )
    for name in ("kd", "minillm"):  # swap what the two repeat
        table = pd.read_parquet(results.project.memorization_table(name))
        shift = -0.3 if name == "kd" else 0.3
        member = table["role"] == "private"
        table.loc[member, "token_accuracy"] += shift
        table.to_parquet(results.project.memorization_table(name))
    finding = measures_disagree(read_study(params_of(), results.project))
    assert finding.verdict == REPRODUCED and "KD and MiniLLM" in finding.answer
    assert finding.figures["spearman"]["loss"] < 0.5


def points(*triples: tuple[float, float, float]) -> list[Point]:
    """(multiplier, perplexity, shift of the members' scores)."""
    return [Point(m, p, 0.2, Leak.of(*sides(0, shift, 400))) for m, p, shift in triples]


def test_the_branch_ends_at_the_best_perplexity():
    curve = points((0.1, 30, 0.2), (0.3, 32, 0.3), (1, 20, 0.8), (3, 25, 2.0))
    assert [point.multiplier for point in learning_branch(curve)] == [0.1, 1]


def test_a_leak_is_interpolated_in_log_perplexity():
    branch = points((0.1, 40.0, 0.2), (1, 10.0, 1.0))
    half = at_perplexity(branch, 20.0)
    assert half.value == pytest.approx((branch[0].leak.value + branch[1].leak.value) / 2)
    assert at_perplexity(branch, 10.0).value == branch[1].leak.value
    assert at_perplexity(branch, 9.9) is None and at_perplexity(branch, 41.0) is None


def test_techniques_are_matched_where_most_of_them_meet():
    made = {
        "kd": points((0.1, 40, 0.2), (1, 10, 1.0)),
        "rkl": points((0.1, 30, 0.2), (1, 15, 1.0)),
        "minillm": points((0.1, 90, 0.1), (1, 60, 0.3)),
        "gkd": points((1, 12, 0.5)),
    }
    found = match(made)
    assert found.perplexity == 15 and set(found.leaks) == {"kd", "rkl"}
    assert found.left_out == {
        "minillm": "worse at every rate of the sweep (60 at best)",
        "gkd": "one learning rate only",
    }
    assert match({"kd": made["kd"], "minillm": made["minillm"]}) is None and match({}) is None


def test_a_technique_that_only_learned_less_leaks_as_much_at_equal_usefulness(tmp_path):
    """KD and reverse KL lie on one curve; the recipes stand at different places on it."""
    results = StudyResults(tmp_path, n=400, strengths={"teacher": 2.0, "sft": 0.0, "kd": 1.5, "rkl": 0.5})
    for method, rate, strength in (("kd", 0.1, 0.5), ("kd", 0.3, 1.0), ("rkl", 3, 1.0), ("rkl", 10, 1.5)):
        results.trial(Variant(method, rate=rate), strength, 20 - 4 * strength)
    params = params_of(study__lr_multipliers=[0.1, 0.3, 3, 10])
    found = {f.claim: f for f in findings_of(read_study(params, results.project))}
    assert found["3"].verdict == REPRODUCED
    matched = found["3 at equal utility"]
    assert matched.verdict == INCONCLUSIVE and matched.figures["perplexity"] == 14
    assert all(abs(each.contrast.value) < 0.05 for each in matched.compared)
