"""Exposure: how far up a canary stands among secrets of its own format (Carlini et al. 2019, arXiv 1802.08232).

exposure = log2 |R| - log2 rank, over a reference set R of secrets that were not planted and the canary itself, in
order of log-perplexity, the likeliest first. In bits: 0 for the last, log2 |R| for the first; a model that has not
seen the canary gives 1 on the median and 1 / ln 2 = 1.44 in the mean.
"""

from __future__ import annotations

import numpy as np

from kdleak.inference.ragged import total
from kdleak.inference.token_statistics import TokenStatistics

#: Mean exposure, bits, where nothing is known of any canary: E[-log2 U] of a uniform rank.
CHANCE = 1 / np.log(2)


def log_perplexity(statistics: TokenStatistics) -> np.ndarray:
    """(n,) minus log2 of the probability of each response given its prompt, bits (equation 1); not per token."""
    return -total(statistics.log_prob, statistics.offsets) / np.log(2)


def ranks(canaries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """(c,) rank of each canary's log-perplexity among `references` (r,) and itself, 1 the likeliest; a tie counts for
    one half, so that a model that finds all secrets equal ranks a canary in the middle."""
    ordered = np.sort(references)
    below = np.searchsorted(ordered, canaries, side="left")
    ties = np.searchsorted(ordered, canaries, side="right") - below
    return 1 + below + ties / 2


def exposure(canaries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """(c,) exposure by rank, bits; at most log2(r + 1)."""
    return np.log2(len(references) + 1) - np.log2(ranks(canaries, references))


def extrapolated_exposure(canaries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """(c,) -log2 P(X <= log-perplexity) with X a skew-normal fitted to the references, bits (section 4.3): not
    bounded by the number of references, but only as good as the fit. NaN where the references do not vary."""
    from scipy.integrate import quad
    from scipy.stats import skewnorm

    if len(references) < 3 or np.ptp(references) == 0:
        return np.full(len(canaries), np.nan)
    fitted = skewnorm(*skewnorm.fit(references))

    def log_cdf(x: float) -> float:
        # Relative to the density at x, the tail below it is of order one, however far out x is; the cdf is not.
        scale, top = fitted.std(), fitted.logpdf(x)
        if x > fitted.mean() - 2 * scale:
            return float(fitted.logcdf(x))
        tail, _ = quad(lambda t: np.exp(fitted.logpdf(x - t * scale) - top), 0, 10)
        return float(top + np.log(tail * scale))

    return np.array([-log_cdf(x) for x in canaries]) / np.log(2)
