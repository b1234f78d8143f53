"""How much of what a teacher learned of one record arrives in its student (`transfer`), and whether a student ever
tells more of a record than its teacher can (`processing`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kdleak.core.seeds import derive
from kdleak.shadow.clustered import Estimate, curve, ratio

#: A record's own coefficient is given where its teacher's gain lies this many standard errors above zero.
CLEAR = 2.0
#: False-positive rates at which the two curves are compared.
RATES = np.array([0.001, 0.003, 0.01, 0.03, 0.1, 0.3])


def gains(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(pairs, n) statistic of the model that had the record less that of its complement, pair by pair."""
    first, second = values[0::2], values[1::2]
    return np.where(inside[0::2], first - second, second - first)


@dataclass(frozen=True)
class Transfer:
    """tau = sum of the students' gains over sum of the teachers', over all records and pairs.

    by_record:   (n,) a record's own, NaN where its teacher's gain is not clear of zero.
    reliability: correlation of records' mean gains of students between the even and the odd pairs; NaN of fewer than
                 two records or four pairs.
    correlation: Pearson's, of records' mean gains of teachers and students.
    """

    tau: Estimate
    by_record: np.ndarray
    reliability: float
    correlation: float


def transfer(student: np.ndarray, teacher: np.ndarray) -> Transfer:
    """The transfer coefficient from gains (pairs, n) of students and of their teachers.

    tau(z) = (s(student of a teacher with z) - s(student of one without)) / (the same of the teachers): 1 where all that
    the teacher learned of z arrives, 0 where nothing does. Both statistics are in the same unit (this project).
    """
    pairs, n = student.shape
    tau = ratio(student.mean(1), teacher.mean(1))
    middle_s, middle_t = student.mean(0), teacher.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = teacher.std(0, ddof=1) / np.sqrt(pairs) if pairs > 1 else np.full(n, np.inf)
        by_record = np.where(middle_t > CLEAR * error, middle_s / middle_t, np.nan)
    stable = pairs >= 4 and n >= 2
    reliability = _correlation(student[0::2].mean(0), student[1::2].mean(0)) if stable else np.nan
    return Transfer(tau, by_record, reliability, _correlation(middle_s, middle_t) if n >= 2 else np.nan)


def processing(
    student: np.ndarray, teacher: np.ndarray, inside: np.ndarray, seed: int, draws: int = 400, level: float = 0.95
) -> dict[str, Any]:
    """Whether the student's curve lies under its teacher's, scores (models, n) of the best attack on each.

    private -> teacher -> student is a Markov chain: no test of a student is more powerful than the best test of its
    teacher, at any false-positive rate (data processing). A violation says that the teacher was attacked badly, or that
    the student met private records by another way. The band is simultaneous over RATES: pairs are drawn again `draws`
    times, and the largest standardised excess of each draw gives its half-width.
    """
    pairs = len(inside) // 2
    usable = RATES[(RATES * (~inside).sum()).astype(int) >= 1]

    def excess(kept: np.ndarray) -> np.ndarray:
        models = np.concatenate([2 * kept, 2 * kept + 1])
        return curve(student[models], inside[models], usable) - curve(teacher[models], inside[models], usable)

    observed = excess(np.arange(pairs))
    if pairs < 4:
        return {"state": "could not run", "why": f"{pairs} pairs; it needs 4"}
    rng = np.random.default_rng(derive(seed, "shadow/processing"))
    drawn = np.stack([excess(rng.integers(0, pairs, pairs)) for _ in range(draws)])
    error = np.maximum(drawn.std(0, ddof=1), 1e-9)
    reach = float(np.quantile(np.abs((drawn - observed) / error).max(1), level))
    low = observed - reach * error
    return {
        "state": "failed" if (low > 0).any() else "passed",
        "rates": usable,
        "excess": observed,
        "low": low,
        "high": observed + reach * error,
    }


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    if x.std() == 0 or y.std() == 0:
        return np.nan
    return float(np.corrcoef(x, y)[0, 1])
