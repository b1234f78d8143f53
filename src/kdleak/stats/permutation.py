"""Relabellings of an audit's records under the null hypothesis that membership means nothing."""

from __future__ import annotations

import numpy as np


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
