"""The area under the ROC curve, its DeLong interval, and comparisons of areas measured on the same records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri  # scipy.stats takes longer to import than an audit to compute

from kdleak.stats.delong import Groups, Leak, Scores, covariance, draws, placements


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


def auc(members: np.ndarray, nonmembers: np.ndarray, level: float = 0.95, groups: Groups | None = None) -> AucEstimate:
    """AUC of scores (m,) and (n,), with a DeLong interval built on the logit scale, where it keeps its coverage near
    0 and 1. All NaN where either side is empty. groups: what counts as one draw; by default every record.

    Where DeLong's variance is zero (perfect separation, all scores equal, one draw a side) it says nothing; then
    min(m, n) disjoint member/non-member pairs are independent and agreed without exception, so an exact binomial
    bound holds: the chance of a pair that does not is at most 1 - (alpha / 2)^(1 / min(m, n)), m and n the draws.
    """
    if not len(members) or not len(nonmembers):
        return AucEstimate(np.nan, np.nan, np.nan, np.nan)
    leak = Leak.of(members, nonmembers, groups)
    value, error = leak.value, leak.error
    alpha = 1.0 - level
    if not error > 0.0:
        pairs = min(draws((len(members), len(nonmembers)), groups))
        slack = 1.0 - (alpha / 2.0) ** (1.0 / pairs)
        p_value = min(1.0, 2.0 * 0.5**pairs) if value in (0.0, 1.0) else 1.0
        return AucEstimate(value, max(0.0, value - slack), min(1.0, value + slack), p_value)
    centre = logit(value)
    error = error / (value * (1.0 - value))
    reach = -ndtri(alpha / 2.0) * error
    p_value = 2.0 * ndtr(-abs(centre) / error)
    return AucEstimate(value, float(expit(centre - reach)), float(expit(centre + reach)), float(p_value))


def auc_difference(first: Scores, second: Scores, level: float = 0.95, groups: Groups | None = None) -> AucDifference:
    """Paired DeLong: AUC(first) - AUC(second), each a (members, nonmembers) pair of scores of the same records in the
    same order; only then does the covariance mean anything. All NaN where either side is empty."""
    if not len(first[0]) or not len(first[1]):
        return AucDifference(np.nan, np.nan, np.nan, np.nan)
    difference = Leak.of(*first, groups) - Leak.of(*second, groups)
    value, error = difference.value, difference.error
    if not error >= 1e-12:  # no disagreement between the two rankings, or too few records to see any
        slack = 1.0 - ((1.0 - level) / 2.0) ** (1.0 / min(draws((len(first[0]), len(first[1])), groups)))
        return AucDifference(value, max(-1.0, value - slack), min(1.0, value + slack), 1.0)
    reach = -ndtri((1.0 - level) / 2.0) * error
    p_value = 2.0 * ndtr(-abs(value) / error)
    return AucDifference(value, max(-1.0, value - reach), min(1.0, value + reach), float(p_value))


def inheritance(student: Scores, teacher: Scores, level: float = 0.95, groups: Groups | None = None) -> AucRatio:
    """(AUC_student - 1/2) / (AUC_teacher - 1/2): the share of the teacher's leak that the student has.

    The interval is Fieller's (1954), with DeLong's covariance of the two AUCs on the same records.
    """
    if not len(student[0]) or not len(student[1]):
        return AucRatio(np.nan, np.nan, np.nan)
    components = [placements(*student), placements(*teacher)]
    x, y = (float(c[0].mean()) - 0.5 for c in components)
    if y == 0.0:
        return AucRatio(np.nan, np.nan, np.nan)
    v = covariance(components, groups) * ndtri((1.0 - level) / 2.0) ** 2
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
