"""Means and the gap between two groups' means, with intervals that do not depend on a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit


@dataclass(frozen=True)
class Gap:
    """Means of members and non-members, their difference (positive: members score higher) and its interval.

    NaN where a side is empty; the interval also where a side has one group only.
    """

    members: float
    nonmembers: float
    gap: float
    low: float
    high: float
    n_members: int
    n_nonmembers: int


def mean_gap(
    members: np.ndarray,
    nonmembers: np.ndarray,
    member_groups: np.ndarray | None = None,
    nonmember_groups: np.ndarray | None = None,
    level: float = 0.95,
) -> Gap:
    """Welch's interval for the difference of two means of `members` (m,) and `nonmembers` (n,); NaN is left out.

    With groups, records of a group (those that share a context or are near-duplicates) count as one draw: variances
    are cluster-robust (Liang & Zeger 1986), and are Welch's own where every group has one record. Values that are all
    0 or 1 get Newcombe's interval (`proportion_gap`), which keeps its width where nothing, or everything, is a hit;
    with groups, over the effective number of records (`_effective`).
    """
    sides = []
    for values, groups in ((members, member_groups), (nonmembers, nonmember_groups)):
        values = np.asarray(values, np.float64)
        groups = np.arange(len(values)) if groups is None else np.asarray(groups)
        keep = np.isfinite(values)
        sides.append((values[keep], groups[keep]))
    (a, a_groups), (b, b_groups) = sides
    if not len(a) or not len(b):
        nan = float("nan")
        return Gap(_mean(a), _mean(b), nan, nan, nan, len(a), len(b))
    if np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all():
        sizes = _effective(a, a_groups, level), _effective(b, b_groups, level)
        low, high = _newcombe(_mean(a), sizes[0], _mean(b), sizes[1], level)
        return Gap(_mean(a), _mean(b), _mean(a) - _mean(b), low, high, len(a), len(b))
    (a_variance, a_freedom), (b_variance, b_freedom) = _variance(a, a_groups), _variance(b, b_groups)
    variance, gap = a_variance + b_variance, float(a.mean() - b.mean())
    half = float("nan")
    if variance == 0:
        half = 0.0
    elif a_freedom and b_freedom:
        freedom = variance**2 / (a_variance**2 / a_freedom + b_variance**2 / b_freedom)
        half = float(stdtrit(freedom, (1 + level) / 2)) * variance**0.5
    return Gap(_mean(a), _mean(b), gap, gap - half, gap + half, len(a), len(b))


def mean_interval(
    values: np.ndarray, groups: np.ndarray | None = None, level: float = 0.95, least: float = 0.0, most: float = 1.0
) -> tuple[float, float, float]:
    """(mean, low, high) of `values` (n,) between `least` and `most`; records of a group are one draw, NaN is left out.

    Student's quantile over groups times the cluster-robust error, cut at the bounds; for shares that are all 0 or 1
    Wilson's interval over the effective number of records. The ends are NaN where there are fewer than two groups.
    """
    values = np.asarray(values, np.float64)
    groups = np.arange(len(values)) if groups is None else np.asarray(groups)
    keep = np.isfinite(values)
    values, groups, mean = values[keep], groups[keep], _mean(values[keep])
    if least == 0.0 and len(values) and np.isin(values, (0, 1)).all():
        return mean, *_wilson(mean, _effective(values, groups, level), level)
    variance, freedom = _variance(values, groups)
    half = float(stdtrit(freedom, (1 + level) / 2)) * variance**0.5 if freedom else np.nan
    low, high = np.clip([mean - half, mean + half], least, most)  # NaN stays
    return mean, float(low), float(high)


def proportion_gap(hits: int, n: int, other_hits: int, other_n: int, level: float = 0.95) -> Gap:
    """Newcombe's hybrid score interval for a difference of two proportions (1998, method 10)."""
    p, q = hits / n, other_hits / other_n
    return Gap(p, q, p - q, *_newcombe(p, n, q, other_n, level), n, other_n)


def _newcombe(p: float, n: float, q: float, m: float, level: float) -> tuple[float, float]:
    """Interval of p - q, proportions of n and m records; both may be effective numbers."""
    (p_low, p_high), (q_low, q_high) = _wilson(p, n, level), _wilson(q, m, level)
    low = p - q - ((p - p_low) ** 2 + (q_high - q) ** 2) ** 0.5
    high = p - q + ((p_high - p) ** 2 + (q - q_low) ** 2) ** 0.5
    return low, high


def _wilson(p: float, n: float, level: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion p of n records (1927)."""
    z = float(ndtri((1 + level) / 2))
    centre, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, (centre - half) / (1 + z * z / n)), min(1.0, (centre + half) / (1 + z * z / n))


def _effective(hits: np.ndarray, groups: np.ndarray, level: float) -> float:
    """Independent records that know as much of a proportion as `hits` (0 or 1) in `groups` (Korn and Graubard 1998):
    p (1 - p) over the cluster-robust variance, made smaller by (normal / Student quantile)^2 for the groups that this
    variance is estimated from; at most the number of records. Where all hits are alike, or in one group, the variance
    is unknown and the number of groups is taken."""
    n, p, count = len(hits), float(hits.mean()), len(np.unique(groups))
    if count == n:
        return n
    variance, freedom = _variance(hits, groups)
    if not freedom or not variance > 0:
        return count
    scale = float(ndtri((1 + level) / 2) / stdtrit(freedom, (1 + level) / 2)) ** 2
    return min(float(n), max(1.0, scale * p * (1 - p) / variance))


def _variance(values: np.ndarray, groups: np.ndarray) -> tuple[float, int]:
    """Cluster-robust variance of the mean, and its degrees of freedom."""
    names, owner = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        return float("nan"), 0
    sums = np.bincount(owner, weights=values - values.mean())
    return float(sums @ sums) / len(values) ** 2 * len(names) / (len(names) - 1), len(names) - 1


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
