"""DeLong's structural components: what makes an AUC a mean over members plus a mean over non-members.

AUC = P(member > non-member) + P(tie) / 2 (Mann-Whitney). Variances and covariances are those of DeLong, DeLong and
Clarke-Pearson (1988), computed from mid-ranks in O(n log n) (Sun and Xu 2014). A weighted sum of AUCs of the same
records is the same sum of their components, and its variance that of the summed components: paired DeLong, for any
number of terms. Records of a group (those that share a context, near-duplicates) count as one draw: components are
summed within groups before they are squared (Obuchowski 1997).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: (members (m,), non-members (n,)): scores, or structural components.
Scores = tuple[np.ndarray, np.ndarray]
#: (groups of the members (m,), groups of the non-members (n,)); a group may have records on both sides.
Groups = tuple[np.ndarray, np.ndarray]


def mid_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 in ascending order; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]


def placements(members: np.ndarray, nonmembers: np.ndarray) -> Scores:
    """DeLong's structural components: for each member the share of non-members below it, for each non-member the
    share of members above it, ties counting one half. Both average to the AUC. Shapes (m,), (n,)."""
    m, n = len(members), len(nonmembers)
    pooled = mid_ranks(np.concatenate([members, nonmembers]))
    of_members = (pooled[:m] - mid_ranks(members)) / n
    of_nonmembers = 1.0 - (pooled[m:] - mid_ranks(nonmembers)) / m
    return of_members, of_nonmembers


def draws(sizes: tuple[int, int], groups: Groups | None) -> tuple[int, int]:
    """Independent draws among (m, n) records: groups where there are any, else records."""
    return sizes if groups is None else (len(np.unique(groups[0])), len(np.unique(groups[1])))


def effective_sizes(sizes: tuple[int, int], groups: Groups | None) -> tuple[float, float]:
    """Independent records that (m, n) records are worth where the records of a group are one draw: n^2 / sum of squared
    group sizes (Kish 1965). The variance of a share is at most that of so many independent records, however much the
    records of a group have in common."""
    if groups is None:
        return float(sizes[0]), float(sizes[1])
    counts = [np.unique(side, return_counts=True)[1].astype(np.float64) for side in groups]
    first, second = (float(each.sum() ** 2 / (each @ each)) if len(each) else 0.0 for each in counts)
    return first, second


def influence(components: Sequence[Scores], groups: Groups | None = None) -> np.ndarray:
    """(k, draws) what each draw adds to the error of each of k AUCs of the same records: `influence @ influence.T` is
    their covariance. All zero where a side has fewer than two draws.

    Each side's sum of squares is scaled by M / (M - 1), M its number of draws, so that with groups of one record the
    covariance is DeLong's own.
    """
    sides = [np.stack([c[side] for c in components]).astype(np.float64) for side in (0, 1)]
    counts = draws((sides[0].shape[1], sides[1].shape[1]), groups)
    if min(counts) < 2:
        return np.zeros((len(components), 0))
    centred = [
        (side - side.mean(1, keepdims=True)) / side.shape[1] * math.sqrt(count / (count - 1))
        for side, count in zip(sides, counts, strict=True)
    ]
    joined = np.hstack(centred)
    if groups is None:
        return joined
    _, owner = np.unique(np.concatenate(groups), return_inverse=True)
    return np.stack([np.bincount(owner, weights=row) for row in joined])


def covariance(components: Sequence[Scores], groups: Groups | None = None) -> np.ndarray:
    """(k, k) covariance of k AUCs of the same records; zero where a side has too few draws to estimate it."""
    parts = influence(components, groups)
    return parts @ parts.T


@dataclass(frozen=True)
class Leak:
    """An AUC, or a weighted sum of AUCs, of the same records: components (m,) of members, (n,) of non-members."""

    members: np.ndarray
    nonmembers: np.ndarray
    groups: Groups | None = None

    @classmethod
    def of(cls, members: np.ndarray, nonmembers: np.ndarray, groups: Groups | None = None) -> Leak:
        """The AUC of scores (m,) and (n,)."""
        return cls(*placements(members, nonmembers), groups)

    def __add__(self, other: Leak) -> Leak:
        if len(self.members) != len(other.members) or len(self.nonmembers) != len(other.nonmembers):
            raise ValueError("paired comparison of scores of different records")
        return Leak(self.members + other.members, self.nonmembers + other.nonmembers, self.groups)

    def __sub__(self, other: Leak) -> Leak:
        return self + other * -1.0

    def __mul__(self, weight: float) -> Leak:
        return Leak(weight * self.members, weight * self.nonmembers, self.groups)

    @property
    def value(self) -> float:
        return float(self.members.mean())

    @property
    def error(self) -> float:
        """Standard error; NaN where a side has fewer than two draws."""
        if min(draws((len(self.members), len(self.nonmembers)), self.groups)) < 2:
            return math.nan
        return math.sqrt(covariance([(self.members, self.nonmembers)], self.groups)[0, 0])

    @property
    def n(self) -> int:
        return len(self.members) + len(self.nonmembers)
