"""Differences between leaks measured on the same records, and how small a one would be seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from kdleak.core.errors import KdleakError
from kdleak.stats.auc import holm
from kdleak.stats.delong import Leak
from kdleak.stats.trainings import MeanLeak, Spread

if TYPE_CHECKING:
    import pandas as pd

ALPHA, POWER = 0.05, 0.8
#: No smaller p-value is looked for.
_LEAST = 1e-15

#: What calls a model: its name, or its name and its learning rate.
Name = TypeVar("Name")


@dataclass(frozen=True)
class Contrast:
    """A difference that a claim says is positive. n: the records that it was measured on; runs: the trainings of each
    model that it is a mean over; between: its standard error from these alone (`stats.trainings`)."""

    name: str
    value: float
    error: float
    n: int
    runs: int = 1
    between: float = 0.0

    @classmethod
    def of(cls, name: str, leak: Leak | MeanLeak) -> Contrast:
        if isinstance(leak, Leak):
            return cls(name, leak.value, leak.error, leak.n)
        return cls.over(name, leak.spread, leak.n)

    @classmethod
    def over(cls, name: str, spread: Spread, n: int) -> Contrast:
        """The mean of a difference over trainings."""
        return cls(name, spread.value, spread.error, n, spread.runs, spread.between)

    @property
    def p_value(self) -> float:
        """Two-sided, of a difference of zero: where the interval of that level ends at zero."""
        if not self.error > 0:
            return 1.0 if self.value == 0 else math.nan
        if self.runs == 1:
            return float(2 * ndtr(-abs(self.value) / self.error))
        from scipy.optimize import brentq  # rarely needed, slow to import

        def beyond(log_p: float) -> float:
            return self._reach(math.exp(log_p) / 2) - abs(self.value)

        return _LEAST if beyond(math.log(_LEAST)) < 0 else math.exp(brentq(beyond, math.log(_LEAST), 0.0))

    @property
    def interval(self) -> tuple[float, float]:
        reach = self._reach(ALPHA / 2)
        return self.value - reach, self.value + reach

    def detectable(self, tests: int = 1) -> float:
        """The smallest difference that a design with this error finds with a probability of 80 % at a level of 5 %,
        two-sided, shared by `tests` tests (Bonferroni); NaN without an error.

        It depends on the design alone. What a power analysis at the *observed* difference says is the p-value again
        (Hoenig and Heisey 2001): without any effect it asks for any number of records.
        """
        return self._reach(ALPHA / (2 * tests)) + self._reach(1 - POWER)

    def _reach(self, tail: float) -> float:
        """How far an interval reaches that leaves out `tail` on a side: of one training, z times the error; of several
        the root of (t between)^2 + (z records)^2 (modified large sample, Graybill and Wang 1980). Satterthwaite's
        degrees of freedom would reject too often with few trainings: at a level of .001, of 3 in .013."""
        z = float(-ndtri(tail))
        if self.runs == 1:
            return z * self.error
        t, records = float(-stdtrit(self.runs - 1, tail)), math.sqrt(max(0.0, self.error**2 - self.between**2))
        return math.hypot(t * self.between, z * records)


def corrected(contrasts: Sequence[Contrast]) -> list[float]:
    """Holm-adjusted p-values of a claim's contrasts."""
    return [float(p) for p in holm([c.p_value for c in contrasts])]


def leaks(
    scores: Mapping[Name, pd.DataFrame],
    attack: str,
    measure: Callable[..., Leak | None] = Leak.of,
) -> dict[Name, Leak]:
    """Each model's AUC (or other `measure` of members' and non-members' scores) by one attack, on the records whose
    score all models define. Records of one `group_id`, where the tables have that column, count as one draw.

    Raises KdleakError where the models were scored on different records. Models without the attack, or without any
    defined score, are left out; nothing is found where a side has no record, or too few for the measure.
    """
    columns = ["record_id", "role", attack]
    tables = {
        name: table[columns].sort_values("record_id", ignore_index=True)
        for name, table in scores.items()
        if attack in table.columns and table[attack].notna().any()
    }
    if not tables:
        return {}
    first = next(iter(tables.values()))
    for name, table in tables.items():
        if not table[["record_id", "role"]].equals(first[["record_id", "role"]]):
            raise KdleakError(f"'{name}' was attacked on other records; run 'dvc repro -P' to attack all on the same")
    values = np.column_stack([table[attack].to_numpy(np.float64) for table in tables.values()])
    defined = np.isfinite(values).all(1)
    member, nonmember = ((first["role"] == role).to_numpy() & defined for role in ("private", "heldout"))
    if not member.any() or not nonmember.any():
        return {}
    table = next(iter(scores[name] for name in tables)).sort_values("record_id", ignore_index=True)
    groups = None
    if "group_id" in table.columns and table["group_id"].notna().all():
        owner = table["group_id"].astype(str).to_numpy()
        groups = owner[member], owner[nonmember]
    found = {name: measure(values[member, k], values[nonmember, k], groups=groups) for k, name in enumerate(tables)}
    return {name: leak for name, leak in found.items() if leak is not None}
