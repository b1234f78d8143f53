"""What an operating point says of differential privacy: an empirical lower bound on epsilon."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdleak.stats.delong import Groups, effective_sizes
from kdleak.stats.operating_points import FPRS, allowed, at_rate, clopper_pearson


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
    groups: Groups | None = None,
) -> float:
    """Empirical lower bound on epsilon at confidence `level`: the best over the operating points `fprs`.

    Bonferroni over the distinct points and over the two rates of each makes the maximum valid. The threshold is an
    order statistic of the non-members: its true FPR is then Beta(k + 1, n - k), whose upper quantile is Clopper and
    Pearson's bound, so that choosing it on the same records costs nothing.

    epsilon is a property of a training procedure: of what one record can change in the distribution of its outcomes.
    One training shows one outcome. The bound rests on three things: that each record (with groups: each group) was in
    or out of the private data by a coin of its own, that whether it was told apart is an independent trial of the
    procedure given the others, and that the records stand for those that the procedure is run on. A fixed split and
    records that influence each other meet neither of the first two exactly; where they fail, the figure describes how
    well this model's members were told apart and bounds no procedure's epsilon. groups: records of one are one draw;
    the rates are then those of the effective number of records (`effective_sizes`).
    """
    sizes = len(members), len(nonmembers)
    m, n = effective_sizes(sizes, groups)
    points = sorted({allowed(f, sizes[1]): f for f in fprs}.values())
    each = 1.0 - (1.0 - level) / len(points)  # two-sided: half of the error on either rate
    best = 0.0
    for fpr in points:
        _, hits, _ = at_rate(members, nonmembers, fpr)
        low, _ = clopper_pearson(hits * m / sizes[0], m, each)
        # With ties fewer than k lie above the threshold; the bound that holds is the one for k.
        _, high = clopper_pearson(allowed(fpr, sizes[1]) * n / sizes[1], n, each)
        best = max(best, epsilon_bound(float(low), float(high), delta))
    return best
