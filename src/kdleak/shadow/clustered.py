"""Means, ratios and operating points over pairs of models, the pair being the draw.

Every record is IN one model of a pair and OUT of the other, so that pairs are exchangeable and, given the records,
independent trainings. Intervals are for other trainings on halves of these records, not for other records.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

#: Fewest false positives behind a true-positive rate that is reported.
FEWEST_FALSE_POSITIVES = 32


@dataclass(frozen=True)
class Estimate:
    """value; [low, high], its 95 % interval; error, its standard error. Of fewer than two pairs all but value are
    NaN."""

    value: float
    low: float
    high: float
    error: float

    def __sub__(self, number: float) -> Estimate:
        return Estimate(self.value - number, self.low - number, self.high - number, self.error)


def jackknife(statistic: Callable[[np.ndarray], float], pairs: int, level: float = 0.95) -> Estimate:
    """statistic(kept), kept the numbers of the pairs that count, with its leave-one-pair-out error (Efron and Stein
    1981) and a Student t on pairs - 1 degrees of freedom."""
    everyone = np.arange(pairs)
    value = statistic(everyone)
    if pairs < 2:
        return Estimate(value, np.nan, np.nan, np.nan)
    without = np.array([statistic(np.delete(everyone, j)) for j in range(pairs)])
    error = float(np.sqrt((pairs - 1) / pairs * ((without - without.mean()) ** 2).sum()))
    reach = float(stdtrit(pairs - 1, (1.0 + level) / 2.0)) * error
    return Estimate(value, value - reach, value + reach, error)


def mean(by_pair: np.ndarray) -> Estimate:
    """Of one number a pair: the mean, with Student's interval, which is what the jackknife of a mean is."""
    return jackknife(lambda kept: float(by_pair[kept].mean()), len(by_pair))


def ratio(numerators: np.ndarray, denominators: np.ndarray) -> Estimate:
    """Sum of the numerators over the sum of the denominators, one of each a pair."""
    return jackknife(lambda kept: float(numerators[kept].sum() / denominators[kept].sum()), len(numerators))


def area(scores: np.ndarray, inside: np.ndarray) -> float:
    """Mann-Whitney's AUC of flat scores, ties a half."""
    from scipy.stats import rankdata

    ranks, n_in = rankdata(scores), int(inside.sum())
    return float((ranks[inside].sum() - n_in * (n_in + 1) / 2.0) / (n_in * (len(scores) - n_in)))


def areas(scores: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(pairs,) AUC of scores (models, n), the mean of a pair's two models."""
    each = [area(row, trained) for row, trained in zip(scores, inside, strict=True)]
    return np.reshape(each, (-1, 2)).mean(1)


def tpr(scores: np.ndarray, inside: np.ndarray, fpr: float) -> Estimate | None:
    """TPR at false-positive rate fpr of scores (models, n), one threshold for all models. None where fewer than
    FEWEST_FALSE_POSITIVES false positives would stand behind it."""
    pairs = len(scores) // 2

    def at(kept: np.ndarray) -> float:
        models = np.concatenate([2 * kept, 2 * kept + 1])
        values, trained = scores[models], inside[models]
        out = np.sort(values[~trained])[::-1]
        return float((values[trained] > out[int(fpr * len(out))]).mean())

    if int(fpr * (~inside).sum()) < FEWEST_FALSE_POSITIVES:
        return None
    return jackknife(at, pairs)


def curve(scores: np.ndarray, inside: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """TPR at each false-positive rate of `rates`, one threshold for all models."""
    out = np.sort(scores[~inside])[::-1]
    thresholds = out[np.minimum((rates * len(out)).astype(int), len(out) - 1)]
    members = np.sort(scores[inside])
    return 1.0 - np.searchsorted(members, thresholds, side="right") / len(members)
