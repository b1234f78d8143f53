"""The order that the numbers of a distillation must be in: student ≤ teacher ≤ accountant.

private → teacher → student is a Markov chain with regard to the canaries: whatever (ε, δ) holds of the teacher holds of
the student. A lower bound above an upper one refutes the accountant, the chain, or what they were computed from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdleak.core.variants import BASELINE, TEACHER
from kdleak.stats.f_dp import profile_refuted

HOLDS, BROKEN, COULD_NOT_RUN = "holds", "broken", "could not run"


Curve = Sequence[tuple[float, float]]


def chain(models: Mapping[str, Mapping[str, Any]], accountant: float | None, curve: Curve = ()) -> list[dict[str, Any]]:
    """The links, each {link, state, why}. models: name -> what `audit_coins` found, all at the accountant's δ.

    A student whose own making states an ε of private (`accountant` there) is held to that, all others to the teacher's,
    and to `curve`, the (ε, δ) that it states at other δ.
    """
    links = [_accounted(name, found, accountant, curve) for name, found in models.items() if name != BASELINE]
    links += [_passed(name, found, models) for name, found in models.items() if name not in (TEACHER, BASELINE)]
    if BASELINE in models:
        links.append(_null(models[BASELINE]))
    return links


def _accounted(name: str, found: Mapping[str, Any], accountant: float | None, curve: Curve) -> dict[str, Any]:
    """Of a student too: what is proven of its teacher holds of it. The whole curve is a stronger claim than ε at one δ,
    and is refuted by fewer right guesses."""
    link, accountant = f"{name} <= accountant", found.get("accountant", accountant)
    if accountant is None:
        return _link(link, COULD_NOT_RUN, "the teacher's training states no ε")
    one = found["one_run"]
    low, why = one["epsilon_lower"], f"{one['epsilon_lower']:.3f} against {accountant:.3f}"
    if curve and profile_refuted(one["canaries"], one["guesses"], one["correct"], curve):
        return _link(link, BROKEN, f"{why}; {one['correct']} right of {one['guesses']} guesses refute its whole curve")
    return _link(link, HOLDS if low <= accountant else BROKEN, why)


def _passed(name: str, found: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The student's lower bound against the most that the teacher's guesses are compatible with."""
    link = f"{name} <= {TEACHER}"
    if TEACHER not in models:
        return _link(link, COULD_NOT_RUN, "no teacher was audited")
    low, high = found["one_run"]["epsilon_lower"], models[TEACHER]["one_run"]["epsilon_high"]
    if high is None:
        return _link(link, COULD_NOT_RUN, "every guess about the teacher may be right: nothing lies above it")
    return _link(link, HOLDS if low <= high else BROKEN, f"{low:.3f} against at most {high:.3f}")


def _null(found: Mapping[str, Any]) -> dict[str, Any]:
    """The no-KD student met no teacher: any ε of it is an error of the audit, which 1 run in 20 makes."""
    low = found["one_run"]["epsilon_lower"]
    return _link(f"{BASELINE} = 0", HOLDS if low == 0 else BROKEN, f"{low:.3f}")


def _link(link: str, state: str, why: str) -> dict[str, Any]:
    return {"link": link, "state": state, "why": why}
