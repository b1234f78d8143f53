"""One test for a whole list (dataset inference): do many weak signals together tell it from a list of non-members?

Weights of all signals are learned on half of both lists and tested on the other half, and the other way round (Maini et
al. 2024, arXiv 2406.06443, sec. 5); here over several halvings, and the p-value comes from relabellings for which all
of that is done anew. Labels enter nowhere else, so that under the null hypothesis, that the lists were parted by
chance, p is uniform whatever the signals' distribution, their number or the halves: P(p <= a) <= a for every a
(Hemerik and Goeman 2018, theorem 2). Averaged halves share their records; a combination of their own p-values would
have to be told how.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kdleak.stats.delong import mid_ranks
from kdleak.stats.permutation import relabellings

#: Halvings that the statistic is a mean over; the ridge penalty, in units of a half's records (signals are standard);
#: what weights are drawn to, equal weights of oriented signals, in standard errors of a signal's own gap: with few
#: records the mean of all signals is hard to beat, with many the data decide.
HALVINGS, PENALTY, PRIOR = 6, 1.0, 1.0
#: Labels in memory at once.
_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class CrossFit:
    """The cross-fitted statistic of `signals` (n, k), standardised columns; groups (n,): what stays in one half."""

    signals: np.ndarray
    groups: np.ndarray
    seed: int = 0

    @cached_property
    def inside(self) -> np.ndarray:
        """(n, 2 h) 1 where a record lies in the half, 0 elsewhere: first halves, then their complements. Groups are
        parted rather than records, and no label decides."""
        generator = np.random.default_rng(self.seed)
        _, owner = np.unique(self.groups, return_inverse=True)
        first = np.column_stack([generator.permutation(owner.max() + 1)[owner] % 2 for _ in range(HALVINGS)])
        return np.hstack([first, 1 - first]).astype(np.float64)

    @cached_property
    def centred(self) -> np.ndarray:
        """(n, 2 h, k) the signals less their mean in each half, 0 outside it."""
        means = self.inside.T @ self.signals / self.inside.sum(0)[:, None]
        centred = np.empty((len(self.signals), *means.shape))
        for half, mean in enumerate(means):
            np.multiply(self.signals - mean, self.inside[:, half, None], out=centred[:, half])
        return centred

    @cached_property
    def gram(self) -> np.ndarray:
        """(2 h, k, k)."""
        of_halves = self.centred.swapaxes(0, 1)
        return of_halves.swapaxes(1, 2) @ of_halves

    def statistic(self, labels: np.ndarray) -> np.ndarray:
        """(p,) for labels (p, n) bool: the mean, over halvings and directions, of the held-out difference of members'
        and non-members' mean scores in standard deviations of the scores."""
        y = labels.astype(np.float64)
        return self._mean_gap(self.gram, self._cross(y), y @ self.inside)

    def planted(self, labels: np.ndarray, used: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """`statistic` (p,) with `shift` (k,) added to the signals of the records `used` (p, n) bool."""
        step = at_once(len(self.signals))
        if len(labels) > step:
            parts = (slice(start, start + step) for start in range(0, len(labels), step))
            return np.concatenate([self.planted(labels[part], used[part], shift) for part in parts])
        y, q = labels.astype(np.float64), used.astype(np.float64)
        sizes, sums, members = self.inside.sum(0), q @ self.inside, y @ self.inside
        squares, shared = sums - sums**2 / sizes, (q * y) @ self.inside - sums * members / sizes
        outer = self._cross(q)[..., None] * shift
        gram = self.gram + outer + outer.swapaxes(2, 3) + squares[..., None, None] * np.outer(shift, shift)
        return self._mean_gap(gram, self._cross(y) + shared[..., None] * shift, members)

    def scores(self, is_member: np.ndarray) -> np.ndarray:
        """(n,) mean held-out score of each record, in standard deviations of its half: its own label is not in it."""
        weights = self._weights(self.gram, self._cross(is_member[None].astype(np.float64)))[0]
        scores = np.stack([self.centred[:, half] @ of_other for half, of_other in enumerate(_other(weights, 0))])
        scores = _other(scores, 0)
        width = np.sqrt((scores**2).sum(1) / _other(self.inside.sum(0), 0))
        return (scores / np.where(width > 0, width, 1.0)[:, None]).sum(0) / HALVINGS

    def _cross(self, y: np.ndarray) -> np.ndarray:
        """(p, 2 h, k) sums of each half's centred signals over the records that y (p, n) marks."""
        n, halves, k = self.centred.shape
        return (y @ self.centred.reshape(n, -1)).reshape(len(y), halves, k)

    def _weights(self, gram: np.ndarray, cross: np.ndarray) -> np.ndarray:
        """(p, 2 h, k) ridge weights: each half's linear discriminant, drawn to equal weights."""
        sizes = self.inside.sum(0)
        penalised = gram + PENALTY * sizes[:, None, None] * np.eye(cross.shape[-1])
        cross = cross + PRIOR * np.sqrt(sizes)[:, None]
        if gram.ndim == 3:
            return np.linalg.solve(penalised, cross.transpose(1, 2, 0)).transpose(2, 0, 1)
        return np.linalg.solve(penalised, cross[..., None])[..., 0]

    def _mean_gap(self, gram: np.ndarray, cross: np.ndarray, members: np.ndarray) -> np.ndarray:
        """(p,) from each half's gram ([p,] 2 h, k, k), cross (p, 2 h, k) and number of members (p, 2 h)."""
        weights, sizes = _other(self._weights(gram, cross), 1), self.inside.sum(0)
        others = sizes - members
        both = (members > 0) & (others > 0)
        per_side = np.where(both, 1.0 / np.maximum(members, 1.0) + 1.0 / np.maximum(others, 1.0), 0.0)
        spread = np.sqrt((weights * (gram @ weights[..., None])[..., 0]).sum(2) / sizes)
        gaps = (weights * cross).sum(2) * per_side
        return np.divide(gaps, spread, out=np.zeros_like(gaps), where=spread > 0).mean(1)


@dataclass(frozen=True)
class ListTest:
    """statistic, null: of the lists as they are, and of relabellings (p,). p_value: one-sided, at least 1 / (1 + p).
    scores: (n,) held-out scores, higher = member."""

    statistic: float
    null: np.ndarray
    p_value: float
    scores: np.ndarray


def list_test(
    fit: CrossFit, is_member: np.ndarray, permutations: int = 1999, seed: int = 0, groups: np.ndarray | None = None
) -> ListTest:
    """Whether the signals of `fit` tell `is_member` (n,) from the rest. groups: as `stats.relabellings` has them."""
    observed = float(fit.statistic(is_member[None])[0])
    null = np.concatenate([fit.statistic(labels) for labels in _drawn(is_member, permutations, seed, groups)])
    p_value = float((1 + (null >= observed - 1e-12).sum()) / (1 + len(null)))
    return ListTest(observed, null, p_value, fit.scores(is_member))


def normal_scores(columns: np.ndarray) -> np.ndarray:
    """(n, k) normal scores of each column's ranks, standardised; an undefined entry is in the middle, 0, and so is a
    column without two values. No label enters."""
    from scipy.special import ndtri

    scores = np.zeros(columns.shape)
    for column, into in zip(columns.T, scores.T, strict=True):
        defined = np.isfinite(column)
        if defined.sum() > 1:
            into[defined] = ndtri((mid_ranks(column[defined]) - 0.5) / defined.sum())
    return standard(scores)


def without(column: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) what is left of `column` once a linear function of `others` (n, j), all of mean zero, is taken away."""
    if not others.shape[1]:
        return column
    return standard((column - others @ np.linalg.lstsq(others, column, rcond=None)[0])[:, None])[:, 0]


def standard(columns: np.ndarray) -> np.ndarray:
    """(n, k) each column with mean 0 and standard deviation 1; 0 where it does not vary."""
    columns = columns - columns.mean(0)
    width = columns.std(0)
    return np.where(width > 1e-9, columns / np.where(width > 1e-9, width, 1.0), 0.0)


def _drawn(is_member: np.ndarray, permutations: int, seed: int, groups: np.ndarray | None) -> Iterator[np.ndarray]:
    """Relabellings, as many at once as memory is meant to hold."""
    generator, step = np.random.default_rng([seed, 1]), at_once(len(is_member))
    for start in range(0, permutations, step):
        yield relabellings(is_member, min(step, permutations - start), generator, groups)


def at_once(n: int) -> int:
    """Labellings of n records that memory is meant to hold."""
    return max(1, _AT_ONCE // n)


def _other(halves: np.ndarray, axis: int) -> np.ndarray:
    """For each half, what stands in the place of its complement."""
    return np.roll(halves, HALVINGS, axis=axis)
