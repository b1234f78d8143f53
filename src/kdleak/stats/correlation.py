"""Do membership and memorization tell the same story, about techniques and about records?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from kdleak.stats.auc import mid_ranks, placements

#: Shares of the records that count as the most exposed.
TOP_SHARES = (0.01, 0.05, 0.1)


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho and its interval; NaN where a side does not vary or has fewer than three values."""

    value: float
    low: float
    high: float
    n: int


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
    inside = [_membership_of_top(scores, share) for scores in (a, b)]
    both = float(inside[0] @ inside[1])
    return both / (2 * float(inside[0].sum()) - both)


def disagreement_report(
    membership: Mapping[str, np.ndarray],
    memorization: Mapping[str, np.ndarray],
    member: np.ndarray,
    seed: int,
    *,
    teacher: str = "teacher",
    baseline: str = "sft",
) -> dict[str, Any]:
    """How far membership and memorization disagree.

    membership, memorization: scores (records,) of the same records by model, higher = more exposed, no NaN; models
    are techniques but for `teacher`. member: (records,) bool. Rankings of techniques leave the teacher and the No-KD
    `baseline` out; overlaps and correlations on records are over members alone.
    """
    names = sorted(set(membership) & set(memorization))
    techniques = [name for name in names if name not in (teacher, baseline)]
    ranking = technique_correlation(
        np.array([membership[name] for name in techniques]).reshape(len(techniques), -1),
        np.array([memorization[name] for name in techniques]).reshape(len(techniques), -1),
        member,
        seed,
    )
    report: dict[str, Any] = {"techniques": techniques, "ranking": _plain(ranking), "records": {}, "pairs": {}}
    for name in names:
        a, b = membership[name][member], memorization[name][member]
        report["records"][name] = _pair(a, b, seed)
        if name != teacher and teacher in names:
            report["records"][name]["with_teacher"] = {
                "membership": _pair(a, membership[teacher][member], seed),
                "memorization": _pair(b, memorization[teacher][member], seed),
            }
    for first, second in combinations(techniques, 2):
        report["pairs"][f"{first}/{second}"] = {
            "membership": _pair(membership[first][member], membership[second][member], seed),
            "memorization": _pair(memorization[first][member], memorization[second][member], seed),
        }
    return report


def _pair(a: np.ndarray, b: np.ndarray, seed: int) -> dict[str, Any]:
    overlap = {f"{share:g}": jaccard_at_top(a, b, share) for share in TOP_SHARES}
    return {"spearman": _plain(record_correlation(a, b, seed)), "jaccard_at_top": overlap}


def _plain(correlation: RankCorrelation) -> dict[str, Any]:
    return {"value": correlation.value, "ci95": [correlation.low, correlation.high], "n": correlation.n}


def _membership_of_top(scores: np.ndarray, share: float) -> np.ndarray:
    """(n,) in [0, 1]: whether each record is among the top ceil(share n), ties at the boundary sharing its places."""
    size = int(np.ceil(share * len(scores) - 1e-9))
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
