"""Figures over pairs of models, the pair being the draw.

Every record is IN one model of a pair and OUT of the other, so that pairs are exchangeable and, given the records,
independent trainings. An attack with shadows uses all pairs on each, so a pair is left out of both: of what is attacked
and of the shadows. Intervals are for other trainings on halves of these records, not for other records.
"""

from __future__ import annotations

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


def jackknife(value: float, without: np.ndarray, level: float = 0.95) -> Estimate:
    """From the statistic of all pairs and that without each of them (pairs,): the leave-one-out error (Efron and Stein
    1981) and a Student t on pairs - 1 degrees of freedom."""
    pairs = len(without)
    if pairs < 2:
        return Estimate(value, np.nan, np.nan, np.nan)
    error = float(np.sqrt((pairs - 1) / pairs * ((without - without.mean()) ** 2).sum()))
    reach = float(stdtrit(pairs - 1, (1.0 + level) / 2.0)) * error
    return Estimate(value, value - reach, value + reach, error)


def ratio(numerators: np.ndarray, denominators: np.ndarray) -> Estimate:
    """Sum of the numerators over the sum of the denominators, one of each a pair."""
    with np.errstate(divide="ignore", invalid="ignore"):
        without = (numerators.sum() - numerators) / (denominators.sum() - denominators)
        return jackknife(float(numerators.sum() / denominators.sum()), without)


def area(scores: np.ndarray, inside: np.ndarray) -> float:
    """Mann-Whitney's AUC of flat scores, ties a half."""
    from scipy.stats import rankdata

    ranks, n_in = rankdata(scores), int(inside.sum())
    return float((ranks[inside].sum() - n_in * (n_in + 1) / 2.0) / (n_in * (len(scores) - n_in)))


def mean_area(scores: np.ndarray, inside: np.ndarray) -> float:
    """Mean over models of the AUC of their scores (models, n)."""
    return float(np.mean([area(row, trained) for row, trained in zip(scores, inside, strict=True)]))


def curve(scores: np.ndarray, inside: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """TPR at each false-positive rate of `rates`, one threshold for all models."""
    out = np.sort(scores[~inside])[::-1]
    thresholds = out[np.minimum((rates * len(out)).astype(int), len(out) - 1)]
    members = np.sort(scores[inside])
    return 1.0 - np.searchsorted(members, thresholds, side="right") / len(members)
