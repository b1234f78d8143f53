"""Statements about the best of several attacks, with the selection paid for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from kdleak.stats.delong import Groups, Scores, draws, influence, placements

#: Draws of the null distribution of the largest standardised error, and their seed: a fixed number, so that the bound
#: of an audit is always the same.
_NULL_DRAWS, _SEED = 50_000, 0


@dataclass(frozen=True)
class Excess:
    """How far an attack's AUC on the student exceeds its largest AUC on a model that never met the teacher.

    value: the smallest of the differences to the nulls, that to `null`. low: lower bound of that smallest difference;
    the bounds of all attacks hold together. differences: null -> (difference, its lower bound).
    """

    value: float
    low: float
    null: str
    differences: Mapping[str, tuple[float, float]]


def simultaneous_excess(
    student: Mapping[str, Scores],
    nulls: Mapping[str, Mapping[str, Scores]],
    level: float = 0.95,
    groups: Groups | None = None,
) -> dict[str, Excess]:
    """For each attack of `student`, its AUC minus that of each null (null -> attack -> scores), paired on the same
    records, with one-sided lower bounds that hold together over attacks and nulls with probability `level`.

    A student leaks by an attack where it exceeds *every* null that the attack has (a baseline student, the base, a
    blind classifier, whose scores are given under each attack's name); attacks without a null are left out. NaN scores
    are left out of the differences that they touch. The bounds are value - c * error with c the `level` quantile of the
    largest standardised error of all differences (max-t, Hothorn, Bretz and Westfall 2008), which are jointly normal
    with the covariance of their DeLong components: strongly correlated attacks cost little. A difference without an
    estimated error has the lower bound -1.
    """
    differences: dict[tuple[str, str], tuple[float, np.ndarray]] = {}
    for attack, scores in student.items():
        for null, by_attack in nulls.items():
            if attack in by_attack:
                differences[attack, null] = _difference(scores, by_attack[attack], groups)
    differences = {key: each for key, each in differences.items() if np.isfinite(each[0])}
    if not differences:
        return {}
    values = np.array([value for value, _ in differences.values()])
    parts = np.stack([part for _, part in differences.values()])
    errors = np.sqrt((parts**2).sum(1))
    known = errors > 1e-12
    critical = _max_t(parts[known] / errors[known, None], level) if known.any() else 0.0
    lows = np.where(known, np.maximum(values - critical * errors, -1.0), -1.0)
    result = {}
    for attack in student:
        compared = {null: (values[i], lows[i]) for i, (name, null) in enumerate(differences) if name == attack}
        if compared:
            closest = min(compared, key=lambda null: compared[null][0])
            plain = {null: (float(value), float(low)) for null, (value, low) in compared.items()}
            result[attack] = Excess(plain[closest][0], min(low for _, low in plain.values()), closest, plain)
    return result


def _difference(first: Scores, second: Scores, groups: Groups | None) -> tuple[float, np.ndarray]:
    """The AUC of `first` minus that of `second` where both are defined, and its influence by draw among all records;
    NaN where a side has no such record, zero influence where one has fewer than two draws."""
    sizes = len(first[0]), len(first[1])
    if sizes != (len(second[0]), len(second[1])):
        raise ValueError("paired comparison of scores of different records")
    kept = [np.isfinite(a) & np.isfinite(b) for a, b in zip(first, second, strict=True)]
    owner = np.arange(sum(sizes)) if groups is None else np.unique(np.concatenate(groups), return_inverse=True)[1]
    total = np.zeros(int(owner.max(initial=-1)) + 1)
    if not all(side.any() for side in kept):
        return np.nan, total
    owners = owner[: sizes[0]][kept[0]], owner[sizes[0] :][kept[1]]
    a, b = (placements(*(side[keep] for side, keep in zip(pair, kept, strict=True))) for pair in (first, second))
    components = a[0] - b[0], a[1] - b[1]
    if min(draws((len(components[0]), len(components[1])), owners)) >= 2:
        total[np.unique(np.concatenate(owners))] = influence([components], owners)[0]
    return float(components[0].mean()), total


def _max_t(directions: np.ndarray, level: float) -> float:
    """The `level` quantile of the largest of k jointly normal errors of unit variance, `directions` (k, draws)."""
    if len(directions) == 1:
        return float(ndtri(level))
    values, vectors = np.linalg.eigh(directions @ directions.T)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    normals = np.random.default_rng(_SEED).standard_normal((_NULL_DRAWS, len(root)))
    return float(np.quantile((normals @ root.T).max(1), level))
