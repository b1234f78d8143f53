"""Rank correlation and overlap of two scores: of the same records, or of the same techniques.

Intervals are percentile bootstraps that draw groups (records that share a context, near-duplicates), by default of one
record each: `resamples` says how often each record is in each draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdleak.stats.delong import effective_sizes, mid_ranks, placements


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho and its interval; NaN where a side does not vary or has fewer than three values."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class TopOverlap:
    """overlap: share of the k most exposed records that two scores have in common; by_chance: what unrelated scores
    have; p_value: the probability of as many by chance."""

    k: int
    overlap: float
    by_chance: float
    p_value: float


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation, ties at mid-ranks; NaN where a side does not vary."""
    return _pearson(mid_ranks(a), mid_ranks(b))


def resamples(n: int, groups: np.ndarray | None, seed: int | np.random.Generator, draws: int = 1000) -> np.ndarray:
    """(draws, n) how often each of n records is in each bootstrap sample of as many groups as there are."""
    owner = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(owner.max(initial=-1)) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1.0 / count), draws)
    return drawn[:, owner]


def record_correlation(
    a: np.ndarray,
    b: np.ndarray,
    seed: int,
    level: float = 0.95,
    draws: int = 1000,
    groups: np.ndarray | None = None,
) -> RankCorrelation:
    """Spearman's rho between two scores of the same records (n,). groups: (n,) what makes records one draw.

    Records where either score is NaN are left out."""
    keep = np.isfinite(a) & np.isfinite(b)
    a, b = a[keep], b[keep]
    if len(a) < 3:
        return RankCorrelation(np.nan, np.nan, np.nan, len(a))
    weights = resamples(len(a), None if groups is None else groups[keep], seed, draws)
    return RankCorrelation(spearman(a, b), *percentiles(weighted_spearman(a, b, weights), level), len(a))


def weighted_spearman(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(draws,) Spearman's rho in each resample (draws, n) of a, b (n,). Ranks of the whole are kept: they stand for the
    scores, and ties in a resample are no news."""
    a, b = mid_ranks(a), mid_ranks(b)
    total = weights.sum(1)
    centred = [values - (weights @ values / total)[:, None] for values in (a, b)]
    cross = (weights * centred[0] * centred[1]).sum(1)
    scale = np.sqrt((weights * centred[0] ** 2).sum(1) * (weights * centred[1] ** 2).sum(1))
    return np.where(scale > 0, cross / np.where(scale > 0, scale, 1.0), np.nan)


def technique_correlation(
    membership: np.ndarray,
    memorization: np.ndarray,
    member: np.ndarray,
    seed: int,
    level: float = 0.95,
    draws: int = 1000,
    groups: np.ndarray | None = None,
) -> RankCorrelation:
    """Spearman's rho between the ranking of techniques by membership AUC and by memorization gap.

    membership, memorization: (techniques, records) scores of the same records. member: (records,) bool. groups:
    (records,) what makes records one draw. The interval is a percentile bootstrap over groups, members and non-members
    apart, which redoes both rankings: it says how sure the rankings of *these* techniques are, not what another
    technique would do.
    """
    generator = np.random.default_rng(seed)
    sides = [np.flatnonzero(member), np.flatnonzero(~member)]

    def rho(rows: Sequence[np.ndarray]) -> float:
        ins, outs = rows
        aucs = [placements(scores[ins], scores[outs])[0].mean() for scores in membership]
        gaps = [scores[ins].mean() - scores[outs].mean() for scores in memorization]
        return spearman(np.array(aucs), np.array(gaps))

    if len(membership) < 3:
        return RankCorrelation(np.nan, np.nan, np.nan, len(membership))
    times = [resamples(len(s), None if groups is None else groups[s], generator, draws) for s in sides]
    drawn = [rho([np.repeat(side, t[i]) for side, t in zip(sides, times, strict=True)]) for i in range(draws)]
    return RankCorrelation(rho(sides), *percentiles(np.array(drawn), level), len(membership))


def jaccard_at_top(a: np.ndarray, b: np.ndarray, share: float) -> float:
    """Overlap |A and B| / |A or B| of the ceil(share n) records that either score (n,) ranks highest.

    Where a tie crosses the boundary, each tied record is in with the share of places left: the expectation over random
    orders of the ties, numerator and denominator apart. Chance is about share / (2 - share).
    """
    size = int(np.ceil(share * len(a) - 1e-9))
    inside = [_membership_of_top(scores, size) for scores in (a, b)]
    both = float(inside[0] @ inside[1])
    return both / (2 * float(inside[0].sum()) - both)


def overlap_at_top(a: np.ndarray, b: np.ndarray, share: float, groups: np.ndarray | None = None) -> TopOverlap:
    """How many of the k = max(1, round(share n)) records that `a` (n,) ranks highest are among the k of `b`.

    Where a tie crosses the boundary, each tied record is in with the share of places left, so that no order of the
    records decides. The p-value is the hypergeometric one of as many common records, rounded down: with ties the
    expected overlap varies less than the overlap of one order, and the test is conservative. With groups it is that of
    the effective number of records (`effective_sizes`), a bound.
    """
    from scipy.stats import hypergeom

    k = max(1, round(share * len(a)))
    common = float(_membership_of_top(a, k) @ _membership_of_top(b, k))
    n = int(effective_sizes((len(a), 0), None if groups is None else (groups, groups[:0]))[0])
    places = max(1, round(share * n))
    p_value = float(hypergeom.sf(np.floor(common * places / k + 1e-9) - 1, n, places, places))
    return TopOverlap(k, common / k, k / len(a), p_value)


def resampled_overlap(a: np.ndarray, b: np.ndarray, share: float, weights: np.ndarray) -> np.ndarray:
    """(draws,) the overlap of the top `share` of a, b (n,) in each resample (draws, n), ties as in `overlap_at_top`."""
    places = share * weights.sum(1, keepdims=True)
    tops = [_share_in_top(scores, weights, places) for scores in (a, b)]
    return (weights * tops[0] * tops[1]).sum(1) / places[:, 0]


def _share_in_top(scores: np.ndarray, weights: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(draws, n) in [0, 1]: whether each record is among the top `places` (draws, 1) of each resample."""
    _, inverse = np.unique(-scores, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.searchsorted(inverse[order], np.arange(inverse.max() + 1))
    sizes = np.add.reduceat(weights[:, order], starts, axis=1)
    left = places - (sizes.cumsum(1) - sizes)
    return np.clip(left / np.maximum(sizes, 1), 0.0, 1.0)[:, inverse]


def _membership_of_top(scores: np.ndarray, size: int) -> np.ndarray:
    """(n,) in [0, 1]: whether each record is among the top `size`, ties at the boundary sharing its places."""
    boundary = np.sort(scores)[len(scores) - size]
    above, tied = scores > boundary, scores == boundary
    return above + tied * ((size - above.sum()) / tied.sum())


def percentiles(drawn: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The central `level` of bootstrap values; NaN ones are left out."""
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return np.nan, np.nan
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else np.nan
