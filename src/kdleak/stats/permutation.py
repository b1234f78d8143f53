"""Relabellings of an audit's records under the null hypothesis that membership means nothing, and what the interval of
an AUC says of them."""

from __future__ import annotations

import numpy as np
from scipy.special import logit, ndtri


def relabellings(
    is_member: np.ndarray, permutations: int, generator: np.random.Generator, groups: np.ndarray | None = None
) -> np.ndarray:
    """(permutations, n) bool: `is_member` (n,) shuffled, groups (n,) as one draw.

    Without groups, labels are exchanged between records. With groups, the records of a group that lies on one side
    keep one label, and such groups exchange theirs: how many groups lie on either side is fixed, how many records is
    not. A group with records on both sides exchanges labels within itself.
    """
    if groups is None:
        return generator.permuted(np.tile(is_member, (permutations, 1)), axis=1)
    _, owner, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    share = np.bincount(owner, weights=is_member) / sizes
    one_sided = np.flatnonzero((share == 0.0) | (share == 1.0))
    of_groups = np.tile(share == 1.0, (permutations, 1))
    of_groups[:, one_sided] = generator.permuted(of_groups[:, one_sided], axis=1)
    labels = of_groups[:, owner]
    for group in np.setdiff1d(np.arange(len(sizes)), one_sided):
        rows = np.flatnonzero(owner == group)
        labels[:, rows] = generator.permuted(np.tile(is_member[rows], (permutations, 1)), axis=1)
    return labels


def excluded_share(
    scores: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None, level: float = 0.95
) -> float:
    """The share of relabellings (p, n) in which the interval of the AUC of `scores` (n,), as `stats.auc` has it, lies
    above or below one half: 1 - `level` where the interval keeps what it says on these records.

    labels: of `relabellings`, so that the draws a side are the same in each. groups (n,): records of one are one draw.
    """
    members = labels.sum(1, keepdims=True)
    sizes = members, labels.shape[1] - members
    blocks, inverse = np.unique(scores, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.searchsorted(inverse[order], np.arange(len(blocks)))
    inside = np.add.reduceat(labels[:, order], starts, axis=1, dtype=np.float64)
    outside = np.bincount(inverse) - inside
    below, above = outside.cumsum(1) - outside / 2, members - inside.cumsum(1) + inside / 2
    areas = (inside * below).sum(1, keepdims=True) / (sizes[0] * sizes[1])
    owner = np.arange(len(scores)) if groups is None else np.unique(groups, return_inverse=True)[1]
    draws = [len(np.unique(owner[side])) for side in (labels[0], ~labels[0])]
    if min(draws) < 2:
        return float("nan")
    scale = [np.sqrt(count / (count - 1)) / size for count, size in zip(draws, sizes, strict=True)]
    ins, outs = (below / sizes[1] - areas) * scale[0], (above / sizes[0] - areas) * scale[1]
    parts = np.where(labels, ins[:, inverse], outs[:, inverse])
    if groups is not None:
        by_group = np.argsort(owner, kind="stable")
        parts = np.add.reduceat(
            parts[:, by_group], np.searchsorted(owner[by_group], np.arange(owner.max() + 1)), axis=1
        )
    errors, value = np.sqrt((parts**2).sum(1)), areas[:, 0]
    inner = (errors > 0) & (value > 0) & (value < 1)
    value, errors = value[inner], errors[inner]
    reach = -ndtri((1 - level) / 2) * errors / (value * (1 - value))
    return float((np.abs(logit(value)) > reach).sum() / len(labels))
