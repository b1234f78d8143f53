"""The audit of one model by the coins of its canaries: what is chosen on one half of them, and bounded on the other.

No guess rests on the coin of a canary that the bound counts. The coins of the choosing half are known to who chooses
attack, orientation and numbers of guesses; given them, the training is as private with regard to the other half as it
was, and its guesses are functions of scores alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from kdleak.stats.auc import auc
from kdleak.stats.f_dp import f_dp_epsilon
from kdleak.stats.one_run import one_run_epsilon, one_run_p_value
from kdleak.stats.operating_points import clopper_pearson

#: Error allowed to a bound.
SIGNIFICANCE = 0.05
#: How many numbers of guesses are tried on either side; of the canaries, the share that is guessed about at least, and
#: where the number is fixed.
TRIED, FEWEST, FIXED = 11, 0.1, 0.4


@dataclass(frozen=True)
class Choice:
    """How coins are guessed: the `into` canaries of highest score were planted, the `out` of lowest were not; of the
    others nothing is said. sign −1: of lowest and highest. The numbers are of as many canaries as it was chosen on."""

    attack: str
    sign: int
    into: int
    out: int

    def guesses(self, scores: np.ndarray) -> np.ndarray:
        """(n,) 1: planted, −1: not, 0: no guess."""
        order = _order(scores, self.sign)
        guesses = np.zeros(len(scores), int)
        guesses[order[: self.into]] = 1
        guesses[order[len(order) - self.out :]] = -1
        return guesses


def _order(scores: np.ndarray, sign: int) -> np.ndarray:
    """Positions, the likeliest to have been planted first. An undefined score stands in the middle; ties by position,
    which knows nothing of coins."""
    known = scores[~np.isnan(scores)]
    values = np.where(np.isnan(scores), np.median(known) if len(known) else 0.0, scores) * sign
    return np.argsort(-values, kind="stable")


def audit_coins(
    scores: Mapping[str, np.ndarray], planted: np.ndarray, choosing: np.ndarray, delta: float
) -> dict[str, Any]:
    """The one-run bounds of one model. scores: attack -> (n,), higher: planted; planted, choosing: (n,) bool.

    one_run: theorem 5.2 of Steinke et al. at `delta`, and at δ 0 as `epsilon_lower_pure`; `epsilon_if_all_right`: what
    as many guesses could have certified. That scores chose the number of guesses is paid for. f_dp: the Gaussian form,
    from the same guesses; each bound holds by itself.
    """
    choice = choose({name: each[choosing] for name, each in scores.items()}, planted[choosing], delta)
    rest, coins = scores[choice.attack][~choosing] * choice.sign, planted[~choosing]
    guesses = choice.guesses(scores[choice.attack][~choosing])
    right = (guesses != 0) & ((guesses > 0) == coins)
    counts = len(coins), int((guesses != 0).sum()), int(right.sum())
    fewest = None if _fixed(int(choosing.sum()), delta) else _fewest(int(choosing.sum()))
    low, high = (float(each) for each in clopper_pearson(counts[2], counts[1])) if counts[1] else (0.0, 1.0)
    known = ~np.isnan(rest)
    told = auc(rest[known & coins], rest[known & ~coins])
    return {
        "one_run": {
            "epsilon_lower": one_run_epsilon(*counts, delta, SIGNIFICANCE, fewest),
            "epsilon_lower_pure": one_run_epsilon(*counts, 0.0, SIGNIFICANCE),
            "epsilon_if_all_right": one_run_epsilon(counts[0], counts[1], counts[1], delta, SIGNIFICANCE, fewest),
            "canaries": counts[0],
            "guesses": counts[1],
            "correct": counts[2],
            "correct_ci95": [low, high],
            "epsilon_high": log_odds(high),
            "attack": choice.attack,
            "orientation": choice.sign,
            "guessed_planted": int((guesses > 0).sum()),
            "planted": int(coins.sum()),
            "auc": told.value,
            "auc_ci95": [told.low, told.high],
        },
        "f_dp": {"epsilon_lower": f_dp_epsilon(*counts, delta, SIGNIFICANCE) if delta else None},
    }


def choose(scores: Mapping[str, np.ndarray], planted: np.ndarray, delta: float) -> Choice:
    """The choice that would certify most on these canaries; where none certifies anything, the first attack and as many
    guesses as are tried, or as are fixed."""
    number, fixed = len(planted), _fixed(len(planted), delta)
    least, side = None if fixed else _fewest(number), fixed // 2 or _most(number)
    best, most = Choice(next(iter(scores)), 1, side, side), 0.0
    for choice, correct in _choices(scores, planted, fixed):
        counts = number, choice.into + choice.out, correct
        if correct <= counts[1] * expit(most):  # half of randomised response's outcomes are as good
            continue
        if one_run_p_value(*counts, most, delta, least) < SIGNIFICANCE:
            best, most = choice, one_run_epsilon(*counts, delta, SIGNIFICANCE, least)
    return best


def _choices(scores: Mapping[str, np.ndarray], planted: np.ndarray, fixed: int) -> Iterator[tuple[Choice, int]]:
    """What is tried, and how many of its guesses are right; fixed: the number of guesses, 0 where it is free."""
    number = len(planted)
    counts = sorted({int(count) for count in np.linspace(0, min(_most(number), number // 2), TRIED)})
    pairs = [(into, out) for into in counts for out in counts if into + out >= _fewest(number)]
    if fixed:
        pairs = [(into, fixed - into) for into in sorted({*counts, fixed // 2}) if 0 <= fixed - into <= _most(number)]
    for attack, values in scores.items():
        for sign in (1, -1):
            coins = planted[_order(values, sign)]
            first, last = np.cumsum([0, *coins]), np.cumsum([0, *~coins[::-1]])
            for into, out in pairs:
                yield Choice(attack, sign, into, out), int(first[into] + last[out])


def _fixed(number: int, delta: float) -> int:
    """How many guesses are made about `number` canaries whatever the scores are; 0 where these may choose it: a failure
    of probability δ that chooses it too then takes less than a fifth of the error that is allowed."""
    return 0 if 2 * number * delta <= SIGNIFICANCE / 5 else 2 * min(int(FIXED / 2 * number), _most(number))


def _most(number: int) -> int:
    """The most guesses on one side: three standard deviations fewer than the coins that fall there on the average. The
    other half's coins fall otherwise, and who guesses "planted" more often than canaries are is wrong with certainty.
    """
    return max(1, int(number / 2 - 1.5 * math.sqrt(number)))


def _fewest(number: int) -> int:
    """The fewest guesses, of both sides together, that are made about as many canaries."""
    return max(1, int(FEWEST * number))


def log_odds(share: float) -> float | None:
    """ε of randomised response that is right with this probability, at least 0; None where there is no end to it."""
    return None if share >= 1 else max(0.0, math.log(share / (1 - share))) if share > 0 else 0.0
