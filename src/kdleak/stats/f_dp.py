"""The one-run bound for a mechanism whose whole trade-off curve is claimed (Mahloujifar et al. 2024, arXiv 2410.22235).

(ε, δ) is one point of what a mechanism allows; a curve f says what it allows everywhere, and a claim of more is easier
to refute. The curves here are those of the Gaussian mechanism, one for each ε at a given δ: a bound says that no
Gaussian mechanism of less than this ε does what was seen. For a mechanism of another curve it is no bound.
"""

from __future__ import annotations

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
    """The ε up to which the Gaussian mechanism that is tight at (ε, delta) is refuted, nats; delta > 0.

    Suppose that `correct` or more of `guesses` (exactly so many) were right with probability `significance`. Of all
    canaries that event would have right an expected share of significance · correct / m, and wrong the rest of the
    guesses. f limits how fast the probability of fewer right guesses may fall off below: step by step it forces mass
    onto one right guess less, until more canaries had to be guessed than were (theorem and algorithm of the paper's
    section 4, with fair coins). Then the supposition is wrong, and what was seen has a p-value below `significance`.
    """

    def refuted(epsilon: float) -> float:
        mu = gaussian_mu(epsilon, delta)
        right, wrong = significance * correct / canaries, significance * (guesses - correct) / canaries
        for fewer in range(correct - 1, -1, -1):
            forced = ndtr(ndtri(right) - mu)
            if forced <= wrong:
                break
            right = min(1.0, right + fewer / (guesses - fewer) * (forced - wrong))
            wrong = forced
        return float(right + wrong - guesses / canaries)

    return largest_refuted(refuted)
