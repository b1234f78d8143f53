"""The area under the ROC curve, its DeLong interval, and comparisons of areas measured on the same records.

AUC = P(member > non-member) + P(tie) / 2 (Mann-Whitney). Variances and covariances are those of DeLong, DeLong and
Clarke-Pearson (1988), computed from mid-ranks in O(n log n) (Sun and Xu 2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri  # scipy.stats takes longer to import than an audit to compute


@dataclass(frozen=True)
class AucEstimate:
    """value; [low, high], its confidence interval; p_value, two-sided against one half."""

    value: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class AucDifference:
    """value = first - second; [low, high], its confidence interval; p_value, two-sided against zero."""

    value: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class AucRatio:
    """value; [low, high], its confidence interval: (nan, nan) where the denominator is not distinguishable from zero,
    since the ratio is then unbounded."""

    value: float
    low: float
    high: float


def mid_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 in ascending order; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]


def placements(members: np.ndarray, nonmembers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DeLong's structural components: for each member the share of non-members below it, for each non-member the
    share of members above it, ties counting one half. Both average to the AUC. Shapes (m,), (n,)."""
    m, n = len(members), len(nonmembers)
    pooled = mid_ranks(np.concatenate([members, nonmembers]))
    of_members = (pooled[:m] - mid_ranks(members)) / n
    of_nonmembers = 1.0 - (pooled[m:] - mid_ranks(nonmembers)) / m
    return of_members, of_nonmembers


def auc(members: np.ndarray, nonmembers: np.ndarray, level: float = 0.95) -> AucEstimate:
    """AUC of scores (m,) and (n,), with a DeLong interval built on the logit scale, where it keeps its coverage near
    0 and 1. All NaN where either side is empty.

    Where DeLong's variance is zero (perfect separation, all scores equal, one record a side) it says nothing; then
    min(m, n) disjoint member/non-member pairs are independent and agreed without exception, so an exact binomial
    bound holds: the chance of a pair that does not is at most 1 - (alpha / 2)^(1 / min(m, n)).
    """
    if not len(members) or not len(nonmembers):
        return AucEstimate(np.nan, np.nan, np.nan, np.nan)
    components = placements(members, nonmembers)
    value = float(components[0].mean())
    variance = float(_covariance([components])[0, 0])
    alpha = 1.0 - level
    if not variance > 0.0:
        pairs = min(len(members), len(nonmembers))
        slack = 1.0 - (alpha / 2.0) ** (1.0 / pairs)
        p_value = min(1.0, 2.0 * 0.5**pairs) if value in (0.0, 1.0) else 1.0
        return AucEstimate(value, max(0.0, value - slack), min(1.0, value + slack), p_value)
    centre = logit(value)
    error = np.sqrt(variance) / (value * (1.0 - value))
    reach = -ndtri(alpha / 2.0) * error
    p_value = 2.0 * ndtr(-abs(centre) / error)
    return AucEstimate(value, float(expit(centre - reach)), float(expit(centre + reach)), float(p_value))


Scores = tuple[np.ndarray, np.ndarray]


def auc_difference(first: Scores, second: Scores, level: float = 0.95) -> AucDifference:
    """Paired DeLong: AUC(first) - AUC(second), each a (members, nonmembers) pair of scores of the same records in the
    same order; only then does the covariance mean anything. All NaN where either side is empty."""
    _check_paired(first, second)
    if not len(first[0]) or not len(first[1]):
        return AucDifference(np.nan, np.nan, np.nan, np.nan)
    components = [placements(*first), placements(*second)]
    value = float(components[0][0].mean() - components[1][0].mean())
    covariance = _covariance(components)
    variance = float(covariance[0, 0] + covariance[1, 1] - 2.0 * covariance[0, 1])
    error = np.sqrt(max(variance, 0.0))
    if error < 1e-12:  # no disagreement between the two rankings, or too few records to see any
        slack = 1.0 - ((1.0 - level) / 2.0) ** (1.0 / min(len(first[0]), len(first[1])))
        return AucDifference(value, max(-1.0, value - slack), min(1.0, value + slack), 1.0)
    reach = -ndtri((1.0 - level) / 2.0) * error
    p_value = 2.0 * ndtr(-abs(value) / error)
    return AucDifference(value, max(-1.0, value - reach), min(1.0, value + reach), float(p_value))


def inheritance(student: Scores, teacher: Scores, level: float = 0.95) -> AucRatio:
    """(AUC_student - 1/2) / (AUC_teacher - 1/2): the share of the teacher's leak that the student has.

    The interval is Fieller's (1954), with DeLong's covariance of the two AUCs on the same records.
    """
    _check_paired(student, teacher)
    if not len(student[0]) or not len(student[1]):
        return AucRatio(np.nan, np.nan, np.nan)
    components = [placements(*student), placements(*teacher)]
    x, y = (float(c[0].mean()) - 0.5 for c in components)
    if y == 0.0:
        return AucRatio(np.nan, np.nan, np.nan)
    v = _covariance(components) * ndtri((1.0 - level) / 2.0) ** 2
    a, b, c = y * y - v[1, 1], x * y - v[0, 1], x * x - v[0, 0]
    if not a > 0.0:
        return AucRatio(x / y, np.nan, np.nan)
    root = np.sqrt(max(b * b - a * c, 0.0))
    return AucRatio(x / y, float((b - root) / a), float((b + root) / a))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down adjusted p-values (Holm 1979), in input order; NaN stays NaN and does not count."""
    p = np.asarray(p_values, np.float64)
    adjusted = np.full(len(p), np.nan)
    defined = np.flatnonzero(~np.isnan(p))
    order = defined[np.argsort(p[defined], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order])) if len(order) else []
    return adjusted


def _covariance(components: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """(k, k) DeLong covariance of k AUCs; zero where one record a side leaves no variance to estimate."""
    of_members = np.stack([c[0] for c in components])
    of_nonmembers = np.stack([c[1] for c in components])
    m, n = of_members.shape[1], of_nonmembers.shape[1]
    if m < 2 or n < 2:
        return np.zeros((len(components), len(components)))
    return np.atleast_2d(np.cov(of_members)) / m + np.atleast_2d(np.cov(of_nonmembers)) / n


def _check_paired(first: Scores, second: Scores) -> None:
    if len(first[0]) != len(second[0]) or len(first[1]) != len(second[1]):
        raise ValueError("paired comparison of scores of different records")
