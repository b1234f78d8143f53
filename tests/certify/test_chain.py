"""The chain of bounds holds, breaks, or could not run, as its numbers say."""

from __future__ import annotations

import pytest

from kdleak.certify.chain import BROKEN, COULD_NOT_RUN, HOLDS, chain


def found(low: float, high: float | None = 9.0) -> dict:
    counts = {"canaries": 250, "guesses": 100, "correct": 90}
    return {"one_run": {"epsilon_lower": low, "epsilon_high": high, **counts}, "f_dp": {"epsilon_lower": low}}


def states(models: dict, accountant: float | None) -> dict[str, str]:
    return {each["link"]: each["state"] for each in chain(models, accountant)}


def test_a_chain_in_order_holds():
    models = {"teacher": found(2.0, 4.0), "kd": found(1.0), "sft": found(0.0)}
    assert states(models, 3.0) == dict.fromkeys(
        ("teacher <= accountant", "kd <= accountant", "kd <= teacher", "sft = 0"), HOLDS
    )


@pytest.mark.parametrize(
    ("models", "broken"),
    [
        ({"teacher": found(3.5), "kd": found(1.0)}, "teacher <= accountant"),
        ({"teacher": found(2.0), "kd": found(3.5)}, "kd <= accountant"),
        ({"teacher": found(0.5, 1.2), "kd": found(1.3)}, "kd <= teacher"),
        ({"teacher": found(2.0), "sft": found(0.1)}, "sft = 0"),
    ],
)
def test_a_link_that_is_out_of_order_is_broken_and_no_other(models, broken):
    assert [link for link, state in states(models, 3.0).items() if state != HOLDS] == [broken]
    assert states(models, 3.0)[broken] == BROKEN


def test_a_student_is_held_to_the_epsilon_of_its_own_making_where_its_teacher_has_none():
    models = {"teacher": found(4.0), "kd": found(1.0), "seqkd": found(1.0) | {"accountant": 0.9}}
    held = {"teacher <= accountant": COULD_NOT_RUN, "kd <= accountant": COULD_NOT_RUN, "seqkd <= accountant": BROKEN}
    assert {link: state for link, state in states(models, None).items() if "accountant" in link} == held


def test_a_curve_that_the_guesses_refute_breaks_the_link_though_the_bound_at_one_delta_does_not():
    """90 of 100 right: no mechanism that is (.5, .01)-private lets that happen."""
    for curve, state in (([(0.5, 0.01), (3.0, 1e-5)], BROKEN), ([(2.5, 0.01), (3.0, 1e-5)], HOLDS)):
        link = chain({"teacher": found(1.0)}, 3.0, curve)[0]
        assert link["state"] == state and ("90 right of 100 guesses refute its whole curve" in link["why"]) == (
            state == BROKEN
        )


def test_what_cannot_be_compared_is_said_to_be_so():
    assert set(states({"teacher": found(4.0, None), "kd": found(1.0)}, None).values()) == {COULD_NOT_RUN}
    links = chain({"kd": found(1.0)}, None)
    assert [each["why"] for each in links] == ["the teacher's training states no ε", "no teacher was audited"]
