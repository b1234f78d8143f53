"""Operating points: the true-positive rate at a fixed false-positive rate, and what it proves.

A record is called a member where its score is strictly above a threshold. The threshold for FPR f is the
(k + 1)-th highest non-member score, k = floor(f n): at most k non-members are called, ties included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

#: The false-positive rates of the study.
FPRS = (0.25, 0.05, 0.01, 0.001, 0.0)


@dataclass(frozen=True)
class OperatingPoint:
    """What calling every score above `threshold` a member does.

    fpr:     the rate asked for; `called` of the n non-members lie above the threshold, called / n <= fpr.
    tpr:     the share of members above the threshold, with its Clopper-Pearson interval `tpr_ci`.
    fpr_ci:  Clopper-Pearson interval of the threshold's true FPR. `tpr_ci` speaks of the TPR at this threshold;
             how far this threshold's true FPR may lie from the one asked for is what `fpr_ci` says.
    finer:   the rate asked for is above zero and finer than 1 / n: the point is the one with no false positive.
    """

    fpr: float
    threshold: float
    tpr: float
    tpr_ci: tuple[float, float]
    false_positives: int
    fpr_ci: tuple[float, float]
    below_resolution: bool


def clopper_pearson(successes: np.ndarray, trials: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Exact binomial interval (low, high) for each of `successes` out of `trials`; [0, 1] without trials."""
    k, n = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(trials, np.float64))
    alpha = 1.0 - level
    low = np.where(k > 0, betaincinv(np.maximum(k, 1.0), n - k + 1.0, alpha / 2.0), 0.0)
    high = np.where(k < n, betaincinv(k + 1.0, np.maximum(n - k, 1.0), 1.0 - alpha / 2.0), 1.0)
    return low, high


def operating_point(members: np.ndarray, nonmembers: np.ndarray, fpr: float, level: float = 0.95) -> OperatingPoint:
    """The operating point of scores (m,) and (n,) at false-positive rate `fpr`; ValueError where a side is empty."""
    if not len(members) or not len(nonmembers):
        raise ValueError("an operating point needs members and non-members")
    n = len(nonmembers)
    allowed = _allowed(fpr, n)
    threshold = float(np.partition(nonmembers, n - 1 - allowed)[n - 1 - allowed]) if allowed < n else -np.inf
    hits = int(np.count_nonzero(members > threshold))
    false_positives = int(np.count_nonzero(nonmembers > threshold))
    low, high = clopper_pearson([hits, false_positives], [len(members), n], level)
    return OperatingPoint(
        fpr=fpr,
        threshold=threshold,
        tpr=hits / len(members),
        tpr_ci=(float(low[0]), float(high[0])),
        false_positives=false_positives,
        fpr_ci=(float(low[1]), float(high[1])),
        below_resolution=fpr > 0.0 and allowed == 0,
    )


def epsilon_bound(tpr_low: float, fpr_high: float, delta: float = 0.0) -> float:
    """Lower bound on epsilon in nats, from a lower bound on TPR and an upper bound on FPR.

    (epsilon, delta)-DP gives TPR <= e^eps FPR + delta and, mirrored, TNR <= e^eps FNR + delta (Kairouz et al. 2015);
    the larger of both is taken, at least 0.
    """
    direct = np.log((tpr_low - delta) / fpr_high) if tpr_low > delta else 0.0
    tnr_low, fnr_high = 1.0 - fpr_high, 1.0 - tpr_low
    mirrored = np.log((tnr_low - delta) / fnr_high) if tnr_low > delta else 0.0
    return float(max(direct, mirrored, 0.0))


def epsilon_lower_bound(
    members: np.ndarray,
    nonmembers: np.ndarray,
    fprs: Sequence[float] = FPRS,
    level: float = 0.95,
    delta: float = 0.0,
) -> float:
    """Empirical lower bound on epsilon at confidence `level`: the best over the operating points `fprs`.

    Bonferroni over the distinct points and over the two rates of each makes the maximum valid. The threshold is an
    order statistic of the non-members: its true FPR is then Beta(k + 1, n - k), whose upper quantile is Clopper and
    Pearson's bound, so that choosing it on the same records costs nothing. The bound takes the records of one model
    for independent draws; it audits that model and is no property of the training algorithm.
    """
    points = sorted({_allowed(f, len(nonmembers)): f for f in fprs}.values())
    each = 1.0 - (1.0 - level) / len(points)  # two-sided: half of the error on either rate
    best = 0.0
    for fpr in points:
        point = operating_point(members, nonmembers, fpr, each)
        # With ties fewer than k are called; the bound that holds is the one for k.
        _, high = clopper_pearson(_allowed(fpr, len(nonmembers)), len(nonmembers), each)
        best = max(best, epsilon_bound(point.tpr_ci[0], float(high), delta))
    return best


def balanced_accuracy(members: np.ndarray, nonmembers: np.ndarray) -> float:
    """(TPR + TNR) / 2 at the threshold that maximises it, chosen on one half of the records and measured on the other,
    both ways: its expectation for an attack that knows nothing is one half, where the maximum over thresholds on the
    same records would exceed it. Halves are by position, so the order of records must carry no meaning.

    NaN with fewer than two records a side. Membership advantage (Yeom et al. 2018) is 2 x this - 1 = TPR - FPR.
    """
    if len(members) < 2 or len(nonmembers) < 2:
        return float("nan")
    rates = []
    for fold in (0, 1):
        threshold = _best_threshold(members[fold::2], nonmembers[fold::2])
        tpr = np.mean(members[1 - fold :: 2] > threshold)
        tnr = np.mean(nonmembers[1 - fold :: 2] <= threshold)
        rates.append((tpr + tnr) / 2.0)
    return float(np.mean(rates))


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


def _allowed(fpr: float, n: int) -> int:
    """Non-members that may lie above the threshold: floor(fpr * n), safe against .29 * 100 = 28.999..."""
    return int(np.floor(fpr * n + 1e-9))
