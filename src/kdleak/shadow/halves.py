"""Which records each shadow model is trained on: balanced halves in complementary pairs, groups never torn apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdleak.core.errors import KdleakError
from kdleak.core.seeds import derive


def halves(groups: Sequence[object], models: int, seed: int) -> np.ndarray:
    """(models, n) bool: whether a model is trained on a record.

    Models 2j and 2j + 1 are a pair: one has what the other lacks, so that every record is IN exactly models / 2 of
    them. The half of a pair is a random half of the groups, filled up to n / 2 records as nearly as whole groups allow.
    More models leave the halves of the first ones as they are.

    groups: of each record, what must not be parted (near-duplicates). Raises KdleakError for an odd number of models.
    """
    if models % 2:
        raise KdleakError(f"shadow.models: {models} is odd; halves come in complementary pairs, so name an even number")
    names, place = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    sizes = np.bincount(place, minlength=len(names))
    chosen = np.empty((models, len(names)), bool)
    for pair in range(models // 2):
        chosen[2 * pair] = _half(sizes, np.random.default_rng(derive(seed, f"shadow/half/{pair}")))
        chosen[2 * pair + 1] = ~chosen[2 * pair]
    return chosen[:, place]


def _half(sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(groups,) bool: groups in random order, each to the side that has fewer records; the sides in random order."""
    inside, counts = np.empty(len(sizes), bool), np.zeros(2, int)
    order = rng.permutation(len(sizes))
    # Large groups first, so that single records can even the sides out; among equals the order is random.
    order = order[np.argsort(-sizes[order], kind="stable")]
    ties = rng.integers(0, 2, len(order))
    for which, tie in zip(order, ties, strict=True):
        side = int(tie) if counts[0] == counts[1] else int(counts[1] < counts[0])
        inside[which] = side
        counts[side] += sizes[which]
    return inside
