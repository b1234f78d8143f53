"""Lower bounds on epsilon from guesses about canaries of one training (Steinke et al. 2023, arXiv 2305.08846).

Each of m canaries was in the training data or not by a fair coin of its own. Whoever saw what the training gave out,
and no coin, guessed some of the coins and abstained on the others; the number of guesses was fixed beforehand. If the
training is (ε, δ)-differentially private with regard to adding or removing one canary, many right guesses are unlikely.
A bound is of the training procedure, holds with the stated confidence over coins and training, and needs no other run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq
from scipy.special import betainc, expit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

#: Error of a bound's search, nats.
SEARCHED = 1e-8


def one_run_p_value(
    canaries: int, guesses: int, correct: int, epsilon: float, delta: float = 0.0, fewest: int | None = None
) -> float:
    """Bound on the probability that an (epsilon, delta)-DP training lets `correct` or more of `guesses` be right.

    β + 2mδα (theorem 5.2 of the paper), β = P[B >= v], α = max over i of P[v - i <= B < v] / i, for v right guesses and
    B binomial with success probability e^ε / (1 + e^ε): no guess does better than randomised response allows.

    fewest: where the number of guesses was itself chosen by what the training gave out, the least that it might have
    been. A failure of probability δ may then be one that chooses it, and α is at most what a binomial variable of
    `fewest` trials has at its mode (docs/theory.md); β alone needs no such care.
    """
    right = expit(epsilon)
    beta = float(_at_least(correct, guesses, right))
    if not delta:
        return beta
    if fewest is not None:
        mode = int((fewest + 1) * right)
        alpha = _at_least(mode, fewest, right) - _at_least(mode + 1, fewest, right)
        return float(min(1.0, beta + 2 * canaries * delta * alpha))
    steps = np.arange(1, correct + 1)
    alpha = np.max((_at_least(correct - steps, guesses, right) - beta) / steps, initial=0.0)
    return float(min(1.0, beta + 2 * canaries * delta * alpha))


def _at_least(successes: ArrayLike, trials: int, probability: float) -> np.ndarray:
    """P[B >= successes] of a binomial B, by the incomplete beta function."""
    k = np.asarray(successes)
    inside = betainc(np.maximum(k, 1), np.maximum(trials - k, 0) + 1.0, probability)
    return np.where(k > trials, 0.0, np.where(k > 0, inside, 1.0))


def one_run_epsilon(
    canaries: int, guesses: int, correct: int, delta: float = 0.0, significance: float = 0.05, fewest: int | None = None
) -> float:
    """The ε up to which (ε, delta)-DP is refuted at `significance`, nats; 0 where not even ε = 0 is."""
    return largest_refuted(lambda e: significance - one_run_p_value(canaries, guesses, correct, e, delta, fewest))


def largest_refuted(refuted: Callable[[float], float]) -> float:
    """The root of `refuted`, which is positive where an ε is refuted and falls as ε grows; 0 where none is."""
    if refuted(0.0) <= 0:
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high) > 0:
        low, high = high, 2 * high
    return float(brentq(refuted, low, high, xtol=SEARCHED))  # type: ignore[arg-type]
