"""The TPR at a fixed FPR as a mean over records, so that two of the same records are compared as AUCs are."""

from __future__ import annotations

import numpy as np

from kdleak.stats.delong import Groups, Leak
from kdleak.stats.operating_points import allowed, at_rate

#: Non-members above the threshold that an error needs.
FEWEST = 5


def tpr_leak(members: np.ndarray, nonmembers: np.ndarray, fpr: float, groups: Groups | None = None) -> Leak | None:
    """TPR at false-positive rate `fpr` of scores (m,) and (n,): its value is the sample's, its components the influence
    of each record, so that differences and means have the error of both chances, that of the members above the
    threshold and that of the threshold itself. None where `fpr` lets fewer than FEWEST non-members through: the error
    would rest on too few. Measured for differences at 1 % (4,000 simulated pairs of equal attacks, 500 a side): a test
    at .05 rejects in .023 to .044, one at .001 in at most .004; with 200 a side in up to .106 and .034.

    Influence of a member: whether it lies above the threshold t. Of a non-member: -s (1[above t] - rate), where s, the
    slope of the ROC curve there, is taken over the false-positive counts within two standard deviations of a
    Binomial(n, fpr): the range over which the threshold would move in another sample (van der Vaart 1998, 21.2).
    """
    n, count = len(nonmembers), allowed(fpr, len(nonmembers))
    if count < FEWEST or not len(members):
        return None
    threshold, _, _ = at_rate(members, nonmembers, fpr)
    above_members, above = members > threshold, nonmembers > threshold
    reach = 2.0 * np.sqrt(n * fpr * (1.0 - fpr))
    low, high = max(0, int(count - reach)), min(n - 1, int(np.ceil(count + reach)))
    descending = np.sort(nonmembers)[::-1]
    rise = np.mean(members > descending[high]) - np.mean(members > descending[low])
    slope = rise * n / max(1, high - low)
    tpr = above_members.mean()
    return Leak(above_members.astype(np.float64), tpr - slope * (above - above.mean()), groups)
