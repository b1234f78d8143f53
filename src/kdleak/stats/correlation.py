"""Rank correlation and overlap of two scores: of the same records, or of the same techniques."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdleak.stats.delong import mid_ranks, placements


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


def record_correlation(
    a: np.ndarray, b: np.ndarray, seed: int, level: float = 0.95, draws: int = 1000
) -> RankCorrelation:
    """Spearman's rho between two scores of the same records (n,), with a percentile bootstrap over records.

    Records where either score is NaN are left out."""
    keep = np.isfinite(a) & np.isfinite(b)
    a, b = mid_ranks(a[keep]), mid_ranks(b[keep])
    if len(a) < 3:
        return RankCorrelation(np.nan, np.nan, np.nan, len(a))
    rng = np.random.default_rng(seed)
    samples = rng.integers(0, len(a), (draws, len(a)))
    # Ranks of the whole are kept in a resample: they stand for the scores, and ties in it are no news.
    drawn = np.array([_pearson(a[rows], b[rows]) for rows in samples])
    return RankCorrelation(_pearson(a, b), *_interval(drawn, level), len(a))


def technique_correlation(
    membership: np.ndarray,
    memorization: np.ndarray,
    member: np.ndarray,
    seed: int,
    level: float = 0.95,
    draws: int = 1000,
) -> RankCorrelation:
    """Spearman's rho between the ranking of techniques by membership AUC and by memorization gap.

    membership, memorization: (techniques, records) scores of the same records. member: (records,) bool. The interval
    is a percentile bootstrap over records, members and non-members apart, which redoes both rankings: it says how
    sure the rankings of *these* techniques are, not what another technique would do.
    """
    rng = np.random.default_rng(seed)
    sides = [np.flatnonzero(member), np.flatnonzero(~member)]

    def rho(rows: Sequence[np.ndarray]) -> float:
        ins, outs = rows
        aucs = [placements(scores[ins], scores[outs])[0].mean() for scores in membership]
        gaps = [scores[ins].mean() - scores[outs].mean() for scores in memorization]
        return spearman(np.array(aucs), np.array(gaps))

    if len(membership) < 3:
        return RankCorrelation(np.nan, np.nan, np.nan, len(membership))
    drawn = np.array([rho([rng.choice(side, len(side)) for side in sides]) for _ in range(draws)])
    return RankCorrelation(rho(sides), *_interval(drawn, level), len(membership))


def jaccard_at_top(a: np.ndarray, b: np.ndarray, share: float) -> float:
    """Overlap |A and B| / |A or B| of the ceil(share n) records that either score (n,) ranks highest.

    Where a tie crosses the boundary, each tied record is in with the share of places left: the expectation over random
    orders of the ties, numerator and denominator apart. Chance is about share / (2 - share).
    """
    size = int(np.ceil(share * len(a) - 1e-9))
    inside = [_membership_of_top(scores, size) for scores in (a, b)]
    both = float(inside[0] @ inside[1])
    return both / (2 * float(inside[0].sum()) - both)


def overlap_at_top(a: np.ndarray, b: np.ndarray, share: float) -> TopOverlap:
    """How many of the k = max(1, round(share n)) records that `a` (n,) ranks highest are among the k of `b`.

    Where a tie crosses the boundary, each tied record is in with the share of places left, so that no order of the
    records decides. The p-value is the hypergeometric one of as many common records, rounded down: with ties the
    expected overlap varies less than the overlap of one order, and the test is conservative.
    """
    from scipy.stats import hypergeom

    k = max(1, round(share * len(a)))
    common = float(_membership_of_top(a, k) @ _membership_of_top(b, k))
    p_value = float(hypergeom.sf(np.floor(common + 1e-9) - 1, len(a), k, k))
    return TopOverlap(k, common / k, k / len(a), p_value)


def _membership_of_top(scores: np.ndarray, size: int) -> np.ndarray:
    """(n,) in [0, 1]: whether each record is among the top `size`, ties at the boundary sharing its places."""
    boundary = np.sort(scores)[len(scores) - size]
    above, tied = scores > boundary, scores == boundary
    return above + tied * ((size - above.sum()) / tied.sum())


def _interval(drawn: np.ndarray, level: float) -> tuple[float, float]:
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return np.nan, np.nan
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else np.nan
