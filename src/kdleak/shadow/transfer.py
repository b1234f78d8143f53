"""How much of what a teacher learned of one record arrives in its student (`transfer`), and whether a student ever
tells more of a record than its teacher can (`processing`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kdleak.shadow.clustered import FEWEST_FALSE_POSITIVES, Estimate, jackknife, ratio

#: A record's own coefficient is given where its teacher's gain lies this many standard errors above zero.
CLEAR = 2.0
#: False-positive rates at which the two curves are compared.
RATES = np.array([0.001, 0.003, 0.01, 0.03, 0.1, 0.3])
#: Fewest pairs that the check is made with: the error of fewer is itself too uncertain.
FEWEST_PAIRS = 8


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


def processing(student: np.ndarray, teachers: np.ndarray, false_positives: np.ndarray) -> dict[str, Any]:
    """Whether the student's curve lies under its teacher's.

    private -> teacher -> student is a Markov chain: no test of a student is more powerful than the best test of its
    teacher, at any false-positive rate (data processing). A violation says that the teacher was attacked badly, or that
    the student met private records by another way.

    student: (1 + pairs, rates) TPR of the best attack, of all pairs and without each of them. teachers: (attacks,
    1 + pairs, rates), of which the largest counts at each rate. false_positives: (rates,) how many stand behind a rate;
    rates with fewer than FEWEST_FALSE_POSITIVES are left out. The band is simultaneous (Bonferroni) over the others.
    """
    pairs, usable = len(student) - 1, false_positives >= FEWEST_FALSE_POSITIVES
    if pairs < FEWEST_PAIRS or not usable.any():
        return {"state": "could not run", "why": f"{pairs} pairs; it needs {FEWEST_PAIRS} and enough false positives"}
    excess = (student - teachers.max(0))[:, usable]
    level = 1.0 - 0.05 / usable.sum()
    band = [jackknife(float(excess[0, k]), excess[1:, k], level) for k in range(excess.shape[1])]
    return {
        "state": "failed" if any(each.low > 0 for each in band) else "passed",
        "rates": RATES[usable],
        "excess": [each.value for each in band],
        "low": [each.low for each in band],
        "high": [each.high for each in band],
    }


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    if x.std() == 0 or y.std() == 0:
        return np.nan
    return float(np.corrcoef(x, y)[0, 1])
