"""The one-run bound for a mechanism whose whole trade-off curve is claimed (Mahloujifar et al. 2024, arXiv 2410.22235).

(ε, δ) is one point of what a mechanism allows; a curve f says what it allows everywhere, and a claim of more is easier
to refute. Three claims are made here. Of Gaussian mechanisms, one for each ε at a given δ: a bound says that none of
less than this ε does what was seen, and is no bound for a mechanism of another curve. Of any (ε, δ)-private mechanism,
of secrets that may have more values than two. And of a privacy profile, an accountant's at many δ.

docs/theory.md, theorem 6, has the proof for secrets of any number of values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr, ndtri

from kdleak.stats.one_run import largest_refuted


def gaussian_delta(epsilon: float, mu: float) -> float:
    """δ of the Gaussian mechanism at ε: Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ), μ being sensitivity over standard deviation
    (Balle and Wang 2018, arXiv 1805.06530, theorem 8)."""
    first, second = log_ndtr(mu / 2 - epsilon / mu), epsilon + log_ndtr(-mu / 2 - epsilon / mu)
    return float(-np.exp(first) * np.expm1(second - first))


@lru_cache(maxsize=4096)
def gaussian_mu(epsilon: float, delta: float) -> float:
    """The μ whose Gaussian mechanism is (epsilon, delta)-DP and no better; delta > 0."""
    high = 1.0
    while gaussian_delta(epsilon, high) < delta:
        high *= 2
    low = high
    while gaussian_delta(epsilon, low) > delta:
        low /= 2
    return float(brentq(lambda mu: gaussian_delta(epsilon, mu) - delta, low, high, xtol=1e-12))  # type: ignore[arg-type]


def f_dp_epsilon(canaries: int, guesses: int, correct: int, delta: float, significance: float = 0.05) -> float:
    """The ε up to which the Gaussian mechanism that is tight at (ε, delta) is refuted, nats; delta > 0."""

    def refuted(epsilon: float) -> float:
        mu = gaussian_mu(epsilon, delta)
        return _excess(canaries, guesses, correct, lambda right: float(ndtr(ndtri(right) - mu)), significance)

    return largest_refuted(refuted)


def choice_epsilon(
    secrets: int, guesses: int, correct: int, delta: float, alternatives: int, significance: float = 0.05
) -> float:
    """The ε up to which (ε, delta)-DP with regard to replacing one secret is refuted, nats. Each of `secrets` was drawn
    from 1 + `alternatives` equally likely values of its own, among which it was guessed."""

    def refuted(epsilon: float) -> float:
        least = profile([(epsilon, delta)])
        return _excess(secrets, guesses, correct, lambda right: alternatives * least(right), significance)

    return largest_refuted(refuted)


def profile_refuted(
    canaries: int, guesses: int, correct: int, points: Iterable[tuple[float, float]], significance: float = 0.05
) -> bool:
    """Whether it is refuted that the mechanism is (ε, δ)-DP at every one of `points`, one at least."""
    return _excess(canaries, guesses, correct, profile(points), significance) > 0


def profile(points: Iterable[tuple[float, float]]) -> Callable[[float], float]:
    """Power -> the least false-positive rate at which a test can have it, against what is (ε, δ)-DP at all `points`."""
    epsilons, deltas = np.array(list(points), float).T
    grown = np.exp(np.minimum(epsilons, 700.0))  # finite

    def least(power: float) -> float:
        return float(max(0.0, np.max((power - deltas) / grown), np.max(1 - deltas - grown * (1 - power))))

    return least


def _excess(
    canaries: int, guesses: int, correct: int, least_wrong: Callable[[float], float], significance: float
) -> float:
    """How much more than all guesses would have to have been made, as a share of the canaries; positive: refuted.

    Suppose that `correct` or more of `guesses` (exactly so many) were right with probability `significance`. Of all
    canaries that event would have right an expected share of significance · correct / m, and wrong the rest of the
    guesses. The trade-off curve limits how fast the probability of fewer right guesses may fall off below: step by step
    it forces mass onto one right guess less, until more canaries had to be guessed than were. Then the supposition is
    wrong, and what was seen has a p-value below `significance`.

    least_wrong: expected share of canaries that were guessed rightly while so many were right -> the least share that
    were guessed wrongly while one fewer, or more, were right.
    """
    right, wrong = significance * correct / canaries, significance * (guesses - correct) / canaries
    for fewer in range(correct - 1, -1, -1):
        forced = least_wrong(right)
        if forced <= wrong:
            break
        right = min(1.0, right + fewer / (guesses - fewer) * (forced - wrong))
        wrong = forced
    return float(right + wrong - guesses / canaries)
