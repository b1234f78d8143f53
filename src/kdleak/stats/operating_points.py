"""Operating points: the true-positive rate at a stated false-positive rate.

A record is called a member where its score is strictly above a threshold. The threshold for FPR f is the
(k + 1)-th highest non-member score, k = floor(f n): at most k non-members are called, ties included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc, betaincinv, gammaln, ndtr, ndtri, xlog1py, xlogy

from kdleak.stats.delong import Groups, Scores, effective_sizes

#: The false-positive rates of the study.
FPRS = (0.25, 0.05, 0.01, 0.001, 0.0)


@dataclass(frozen=True)
class OperatingPoint:
    """What calling every score above `threshold` a member does.

    fpr:     the stated rate; `false_positives` of the n non-members lie above the threshold, that is <= fpr * n.
    tpr:     the share of members above the threshold.
    tpr_ci:  interval of the TPR *at the stated FPR* (`tpr_interval`): it knows that the threshold was estimated.
    tpr_ci_at_threshold, fpr_ci: Clopper-Pearson intervals of this threshold's own TPR and FPR.
    below_resolution: the stated rate is above zero and finer than 1 / n: the point is the one with no false positive.
    """

    fpr: float
    threshold: float
    tpr: float
    tpr_ci: tuple[float, float]
    tpr_ci_at_threshold: tuple[float, float]
    false_positives: int
    fpr_ci: tuple[float, float]
    below_resolution: bool


def clopper_pearson(successes: ArrayLike, trials: ArrayLike, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Exact binomial interval (low, high) for each of `successes` out of `trials`; [0, 1] without trials. Neither need
    be whole: effective numbers of records that come in groups are not (Korn and Graubard 1998)."""
    k, n = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(trials, np.float64))
    alpha = 1.0 - level
    low = np.where(k > 0, betaincinv(np.where(k > 0, k, 1.0), n - k + 1.0, alpha / 2.0), 0.0)
    high = np.where(k < n, betaincinv(k + 1.0, np.where(k < n, n - k, 1.0), 1.0 - alpha / 2.0), 1.0)
    return low, high


def operating_point(
    members: np.ndarray, nonmembers: np.ndarray, fpr: float, level: float = 0.95, groups: Groups | None = None
) -> OperatingPoint:
    """The operating point of scores (m,) and (n,) at false-positive rate `fpr`; ValueError where a side is empty.

    groups: what counts as one draw; by default every record. The rates are shares of records; their intervals are those
    of the effective number of records (`effective_sizes`).
    """
    if not len(members) or not len(nonmembers):
        raise ValueError("an operating point needs members and non-members")
    threshold, hits, false_positives = at_rate(members, nonmembers, fpr)
    tpr, false = hits / len(members), false_positives / len(nonmembers)
    sizes = np.array(effective_sizes((len(members), len(nonmembers)), groups))
    low, high = clopper_pearson(sizes * [tpr, false], sizes, level)
    stated = tpr_interval(members, nonmembers, fpr, level, groups)
    return OperatingPoint(
        fpr=fpr,
        threshold=threshold,
        tpr=tpr,
        tpr_ci=(min(stated[0], tpr), max(stated[1], tpr)),
        tpr_ci_at_threshold=(float(low[0]), float(high[0])),
        false_positives=false_positives,
        fpr_ci=(float(low[1]), float(high[1])),
        below_resolution=fpr > 0.0 and allowed(fpr, len(nonmembers)) == 0,
    )


def operating_points(
    scores: Mapping[str, Scores],
    fpr: float,
    level: float = 0.95,
    groups: Mapping[str, Groups | None] | None = None,
) -> dict[str, OperatingPoint]:
    """The operating points of several attacks whose intervals hold together: each at 1 - (1 - level) / k (Bonferroni),
    so that whichever attack is picked for its TPR, its interval covers with probability `level`. Attacks without a
    score on either side are left out of k. groups: by attack, of the records that it scores."""
    usable = {name: pair for name, pair in scores.items() if len(pair[0]) and len(pair[1])}
    each = 1.0 - (1.0 - level) / max(1, len(usable))
    owners = groups or {}
    return {name: operating_point(*pair, fpr, each, owners.get(name)) for name, pair in usable.items()}


def at_rate(members: np.ndarray, nonmembers: np.ndarray, fpr: float) -> tuple[float, int, int]:
    """(threshold, members above it, non-members above it) of the lowest threshold that keeps `fpr` on the sample."""
    n, k = len(nonmembers), allowed(fpr, len(nonmembers))
    threshold = float(np.partition(nonmembers, n - 1 - k)[n - 1 - k]) if k < n else -np.inf
    return threshold, int(np.count_nonzero(members > threshold)), int(np.count_nonzero(nonmembers > threshold))


def tpr_interval(
    members: np.ndarray, nonmembers: np.ndarray, fpr: float, level: float = 0.95, groups: Groups | None = None
) -> tuple[float, float]:
    """Interval of the TPR at the threshold whose *true* FPR is `fpr`, which the sample's threshold only estimates.

    The number K of non-members above the true threshold is Binomial(n, fpr), whatever the scores' distribution. Given
    K, the members above it are about s(K), those above the midpoint between the K-th and the (K + 1)-th highest
    non-member, and the TPR has Jeffreys' Beta(s + 1/2, m - s + 1/2). The interval's ends are quantiles of that mixture
    over K: both sources of chance, and no normal approximation of either. s is smoothed over the K that matter by a
    line in probit-probit coordinates (the binormal ROC), since its steps carry sampling noise of the members that the
    Beta already counts. K = 0 says nothing of how far above the highest non-member the threshold lies and counts as a
    TPR of 0 for the lower end: where (1 - fpr)^n exceeds (1 - level) / 2 (at 1 %: fewer than 368 non-members) the
    lower end is 0, nothing can lie below it, and coverage exceeds the level. With groups m and n are the effective
    numbers of records, and s the members' share at the same share of non-members: a bound, since records of a group
    count as if they were one (a handful of false positives cannot say how much they have in common).

    Coverage of the 95 % interval in 1,000 simulated audits (benchmarks/tpr_coverage.py), m = n, lowest and highest over
    six pairs of distributions (normals 0, 1, 2.5 apart, 20 % of members memorised, exponential, Student's t); in
    brackets the lowest of Clopper and Pearson's interval of the threshold drawn, read as one of the stated rate:

        n      FPR 1 %            FPR 5 %            FPR 25 %
        200    .955-1.000 (.48)   .945-.968 (.72)    .943-.960 (.84)
        500    .948-.972 (.46)    .945-.963 (.72)    .939-.968 (.82)
        5000   .933-.956 (.46)    .939-.954 (.73)    .943-.957 (.81)
    """
    sizes, alpha = (len(members), len(nonmembers)), 1.0 - level
    m, n = effective_sizes(sizes, groups)
    reach = 5.0 * np.sqrt(n * fpr * (1.0 - fpr)) + 5.0
    above = np.arange(max(0, int(n * fpr - reach)), min(int(n), int(n * fpr + reach)) + 1)
    weights = _binomial_weights(above, n, fpr)
    descending, ascending = np.sort(nonmembers)[::-1], np.sort(members)
    hits = (sizes[0] - np.searchsorted(ascending, descending, side="right")) * (m / sizes[0])
    place = above * (sizes[1] / n)  # how many of the non-members lie above
    first, last = np.ceil(place - 1e-9).astype(int) - 1, np.floor(place + 1e-9).astype(int)
    upper = np.where(first >= 0, hits[np.maximum(first, 0)], 0.0)  # members above the K-th highest non-member
    lower = np.where(last < sizes[1], hits[np.minimum(last, sizes[1] - 1)], m)  # ... and above the one below it
    smooth = _probit_line((above + 0.5) / (n + 1), ((upper + lower) / 2 + 0.5) / (m + 1), weights) * (m + 1) - 0.5
    s = np.clip(smooth, 0.0, m)
    none = above == 0
    tail = alpha / 2.0 - float(weights[none].sum())
    low = _mixture_quantile(weights[~none], s[~none] + 0.5, m - s[~none] + 0.5, tail) if tail > 0 else 0.0
    s = np.where(none, np.maximum(s, lower), s)
    return low, _mixture_quantile(weights, s + 0.5, m - s + 0.5, 1.0 - alpha / 2.0)


def balanced_accuracy(members: np.ndarray, nonmembers: np.ndarray, groups: Groups | None = None) -> float:
    """(TPR + TNR) / 2 at the threshold that maximises it, chosen on one half of the records and measured on the other,
    both ways: its expectation for an attack that knows nothing is one half, where the maximum over thresholds on the
    same records would exceed it. Halves are by position, so the order of records must carry no meaning; records of a
    group are in one half.

    NaN with fewer than two records, or groups, a side. Membership advantage (Yeom et al. 2018) is 2 x this - 1.
    """
    halves = _halves((len(members), len(nonmembers)), groups)
    if any(len(np.unique(side)) < 2 for side in halves):
        return float("nan")
    rates = []
    for half in (0, 1):
        chosen, measured = ((members[halves[0] == k], nonmembers[halves[1] == k]) for k in (half, 1 - half))
        threshold = _best_threshold(*chosen)
        rates.append((np.mean(measured[0] > threshold) + np.mean(measured[1] <= threshold)) / 2.0)
    return float(np.mean(rates))


def _halves(sizes: tuple[int, int], groups: Groups | None) -> tuple[np.ndarray, np.ndarray]:
    """(m,), (n,) the half, 0 or 1, of each record: every second group, in order of their first records; a group that
    has records on both sides is in one half."""
    if groups is None:
        return np.arange(sizes[0]) % 2, np.arange(sizes[1]) % 2
    half: dict[str, int] = {}
    for side in groups:
        first = np.sort(np.unique(side, return_index=True)[1])
        half = {str(group): k % 2 for k, group in enumerate(side[first])} | half
    first, second = (np.array([half[str(group)] for group in side], int) for side in groups)
    return first, second


def roc_curve(members: np.ndarray, nonmembers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The corners (fpr, tpr) of the curve over all thresholds, from (0, 0) to (1, 1).

    A threshold that lies on the straight line between its neighbours' points is left out.
    """
    _, fp, tp = _calls(members, nonmembers)
    fp, tp = np.concatenate([[0], fp]), np.concatenate([[0], tp])
    right, up = np.diff(fp), np.diff(tp)
    corner = np.concatenate([[True], right[:-1] * up[1:] != right[1:] * up[:-1], [True]])
    return fp[corner] / len(nonmembers), tp[corner] / len(members)


def _calls(members: np.ndarray, nonmembers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct scores in descending order, and how many non-members and members score at least that."""
    scores = np.concatenate([members, nonmembers])
    is_member = np.repeat([1, 0], [len(members), len(nonmembers)])
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    tp = np.cumsum(is_member[order])[last]
    return scores[order][last], last + 1 - tp, tp


def _best_threshold(members: np.ndarray, nonmembers: np.ndarray) -> float:
    """The threshold with the highest TPR + TNR, half-way to the next lower score."""
    values, fp, tp = _calls(members, nonmembers)
    best = int(np.argmax(tp / len(members) - fp / len(nonmembers)))
    if best == len(values) - 1:
        return -np.inf
    return float((values[best] + values[best + 1]) / 2.0)


def allowed(fpr: float, n: int) -> int:
    """Non-members that may lie above the threshold: floor(fpr * n), safe against .29 * 100 = 28.999..."""
    return int(np.floor(fpr * n + 1e-9))


def _binomial_weights(k: np.ndarray, n: float, rate: float) -> np.ndarray:
    """P(K = k), K ~ Binomial(n, rate), normalised over `k`."""
    log = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1) + xlogy(k, rate) + xlog1py(n - k, -rate)
    weights = np.exp(log - log.max())
    return weights / weights.sum()


def _probit_line(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(k,) the rates `y` as a weighted least-squares line of probit(y) on probit(x) has them; never falling in x."""
    u, v = ndtri(x), ndtri(y)
    centre, spread = weights @ u, weights @ (u - weights @ u) ** 2
    slope = max(0.0, float(weights @ ((u - centre) * v) / spread)) if spread > 0 else 0.0
    return ndtr(weights @ v + slope * (u - centre))


def _mixture_quantile(weights: np.ndarray, a: np.ndarray, b: np.ndarray, probability: float) -> float:
    """The value below which a mixture of Beta(a, b) has `probability`."""
    from scipy.optimize import brentq  # takes longer to import than all of this package

    return float(brentq(lambda x: weights @ betainc(a, b, x) - probability, 0.0, 1.0, xtol=1e-8))
