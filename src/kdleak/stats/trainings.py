"""A leak over several trainings of a model, audited on the same records: the training is a unit of its own.

The variance of a mean over n trainings is s^2 / n + c (Obuchowski and Rockette 1995, with trainings for readers and
records for cases): s^2 between the trainings, and c the covariance that two of them have because they share their
records. Its interval takes each part at its own quantile, t of n - 1 degrees of freedom and the normal one
(`contrasts.Contrast`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdleak.stats.delong import Leak, covariance


@dataclass(frozen=True)
class Spread:
    """The mean of one figure over `runs` trainings; its standard errors from trainings alone and from records alone."""

    value: float
    between: float
    records: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float], shared: float) -> Spread:
        """shared: the covariance of two trainings' values over their records; of one training, its variance."""
        between = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
        return cls(float(np.mean(values)), between, math.sqrt(max(0.0, shared)), len(values))

    @property
    def error(self) -> float:
        return math.hypot(self.between, self.records)


@dataclass(frozen=True)
class MeanLeak:
    """The leaks of one model by the seed of its training. Sums and differences are paired by seed; a plain `Leak` is of
    a model that has one training, which stands beside all of these."""

    by_seed: Mapping[int | None, Leak]

    def __add__(self, other: MeanLeak | Leak) -> MeanLeak:
        return self._paired(other, lambda a, b: a + b)

    def __sub__(self, other: MeanLeak | Leak) -> MeanLeak:
        return self._paired(other, lambda a, b: a - b)

    def __mul__(self, weight: float) -> MeanLeak:
        return MeanLeak({seed: leak * weight for seed, leak in self.by_seed.items()})

    def _paired(self, other: MeanLeak | Leak, combined: Callable[[Leak, Leak], Leak]) -> MeanLeak:
        beside = other.by_seed if isinstance(other, MeanLeak) else dict.fromkeys(self.by_seed, other)
        return MeanLeak({seed: combined(leak, beside[seed]) for seed, leak in self.by_seed.items() if seed in beside})

    @property
    def runs(self) -> int:
        return len(self.by_seed)

    @property
    def n(self) -> int:
        return next(iter(self.by_seed.values())).n

    @property
    def shared(self) -> float:
        """Covariance over the records of two trainings' leaks, the mean over pairs; of one training, its variance."""
        leaks = list(self.by_seed.values())
        matrix = covariance([(leak.members, leak.nonmembers) for leak in leaks], leaks[0].groups)
        return float(matrix[0, 0] if len(leaks) == 1 else matrix[~np.eye(len(leaks), dtype=bool)].mean())

    @property
    def spread(self) -> Spread:
        return Spread.of([leak.value for leak in self.by_seed.values()], self.shared)

    @property
    def value(self) -> float:
        return self.spread.value

    @property
    def error(self) -> float:
        return self.spread.error
