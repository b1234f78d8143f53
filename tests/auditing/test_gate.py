"""Claims on --fail-above: an audit fails a build on what it shows, and says what it cannot tell."""

from __future__ import annotations

import copy

import pytest

from kdleak.auditing.gate import ABOVE, CANNOT_SAY, exit_code, read_limits
from kdleak.auditing.list_verdict import NO_NULL
from kdleak.core.errors import KdleakError

FIGURES = {
    "verdict": {
        "kind": "leak",
        "headline": "It leaks.",
        "strongest": {"tpr_ci": [0.03, 0.09]},
        "power": {"noticeable_auc": 0.62},
        "excess": {"attacks": {"loss": {"at_least": -0.01}, "ez": {"at_least": 0.08}}},
    },
    "list": {
        "kind": "no_evidence",
        "p_value": 0.02,
        "headline": "Nothing can be said.",
        "why": "Too few groups.",
        "placebo": {"baseline": 0.4},
    },
    "membership": {"controls": {"permutation": {"best": {"p_value": 0.004}}}},
}


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (["excess_auc=.05"], ABOVE),
        (["excess_auc=.08"], 0),
        (["tpr=.02"], ABOVE),
        (["tpr=.03"], 0),
        (["p=.01"], ABOVE),
        (["p=.004"], 0),
        (["list_p=.05"], ABOVE),
        (["list_p=.01"], 0),
        (["excess_auc=.2", "p=.01"], ABOVE),
        ([], 0),
    ],
)
def test_a_build_fails_where_a_figure_is_shown_beyond_its_limit(limits, code):
    found, lines = exit_code(FIGURES, read_limits(limits))
    assert found == code and len(lines) == len(limits)


def test_a_limit_finer_than_the_power_is_said_to_be():
    _, lines = exit_code(FIGURES, {"excess_auc": 0.1})
    assert lines == [
        "--fail-above excess_auc=0.1: the excess AUC is at least 0.08, not shown beyond the limit; an excess below "
        "0.12 may have gone unnoticed"
    ]


def test_a_limit_on_the_list_cannot_be_judged_where_nothing_is_told_of_it():
    untold = FIGURES | {"list": FIGURES["list"] | {"kind": "cannot_tell"}}
    assert exit_code(untold, {"list_p": 0.01}) == (
        CANNOT_SAY,
        ["--fail-above: Nothing can be said. Too few groups."],
    )
    assert exit_code(untold, {"tpr": 0.02})[0] == ABOVE


@pytest.mark.parametrize("placebo", [{}, {"baseline": None}])
def test_no_limit_on_the_list_is_crossed_without_a_model_that_never_met_the_teacher(placebo):
    alone = FIGURES | {"list": FIGURES["list"] | {"placebo": placebo}}
    assert exit_code(alone, {"list_p": 0.05}) == (CANNOT_SAY, [f"--fail-above: Nothing can be said. {NO_NULL}"])
    assert exit_code(alone, {"list_p": 0.01})[0] == 0


@pytest.mark.parametrize("kind", ["lists_differ", "cannot_tell", "swapped"])
def test_what_cannot_be_told_is_neither_passed_nor_failed(kind):
    figures = copy.deepcopy(FIGURES)
    figures["verdict"]["kind"] = kind
    assert exit_code(figures, {"tpr": 1.0}) == (CANNOT_SAY, ["--fail-above: It leaks."])
    assert exit_code(figures, {}) == (0, [])


def test_unknown_figures_cross_no_limit():
    figures = copy.deepcopy(FIGURES)
    figures["membership"]["controls"]["permutation"]["best"] = None
    figures["verdict"]["excess"]["attacks"] = {}
    code, lines = exit_code(figures, {"p": 0.5, "excess_auc": 0.0})
    assert code == 0 and all("not known" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("auc=.1", "--fail-above auc=.1: 'auc' cannot be limited; "),
        ("tpr", "--fail-above tpr: a limit is a number from 0 to 1; write tpr=0.05"),
        ("p=five", "--fail-above p=five: a limit is a number from 0 to 1; write p=0.05"),
        ("tpr=1.5", "--fail-above tpr=1.5: a limit is a number from 0 to 1"),
    ],
)
def test_a_limit_that_is_none_is_one_line(text, message):
    with pytest.raises(KdleakError) as error:
        read_limits([text])
    assert str(error.value).startswith(message)
