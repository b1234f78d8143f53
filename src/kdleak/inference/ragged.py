"""Reductions over ragged arrays: record i owns values[offsets[i] : offsets[i + 1]].

All sums run in float64 and within one record, so that no record's result depends on its neighbours; an empty
record gives NaN.
"""

from __future__ import annotations

import numpy as np


def owners(offsets: np.ndarray) -> np.ndarray:
    """(total,) the record that each value belongs to."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def total(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(n,) float64 sums; NaN for an empty record."""
    lengths = np.diff(offsets)
    sums = np.bincount(owners(offsets), weights=np.asarray(values, np.float64), minlength=len(lengths))
    return np.where(lengths > 0, sums, np.nan)


def mean(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(n,) float64 means; NaN for an empty record."""
    return total(values, offsets) / np.maximum(np.diff(offsets), 1)


def lowest_mean(values: np.ndarray, offsets: np.ndarray, share: float) -> np.ndarray:
    """(n,) float64 means over the lowest `share` of each record's values: floor(share * length), at least one."""
    values = np.asarray(values, np.float64)
    owner, lengths = owners(offsets), np.diff(offsets)
    ordered = values[np.lexsort((values, owner))]
    place = np.arange(len(values)) - np.asarray(offsets)[owner]
    # The small addend keeps floor(.2 * 15) at 3 whichever way the product was rounded.
    count = np.maximum(1, np.floor(share * lengths + 1e-9)).astype(np.int64)
    chosen = place < count[owner]
    sums = np.bincount(owner[chosen], weights=ordered[chosen], minlength=len(lengths))
    return np.where(lengths > 0, sums / count, np.nan)
