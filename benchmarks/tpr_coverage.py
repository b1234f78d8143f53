"""How often the 95 % interval of the TPR at a stated FPR covers the truth, in simulated audits.

    python benchmarks/tpr_coverage.py [audits]

Prints a row for each size and rate: lowest and highest coverage over the pairs of distributions in `AUDITS`, beside
that of the Clopper-Pearson interval of the threshold drawn, read (wrongly) as one of the stated rate. 1,000 audits take
about five minutes of one core; a reduced form runs in tests/stats/test_operating_points.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from scipy import stats as scipy_stats

from kdleak.stats import operating_point

Draw = Callable[[np.random.Generator, int], np.ndarray]


def _normal(mean: float) -> Draw:
    return lambda generator, n: generator.normal(mean, 1.0, n)


def _memorised(generator: np.random.Generator, n: int) -> np.ndarray:
    return np.where(generator.random(n) < 0.2, generator.normal(4.0, 1.0, n), generator.normal(0.0, 1.0, n))


def _shifted(by: float) -> Callable[[float], float]:
    return lambda fpr: float(scipy_stats.norm.sf(scipy_stats.norm.isf(fpr) - by))


def _student(fpr: float) -> float:
    return float(scipy_stats.t.sf((scipy_stats.t.isf(fpr, 3) - 0.5) / 1.5, 3))


#: name -> (scores of members, scores of non-members, the true TPR at an FPR).
AUDITS: dict[str, tuple[Draw, Draw, Callable[[float], float]]] = {
    "normals, no signal": (_normal(0.0), _normal(0.0), lambda fpr: fpr),
    "normals 1 apart": (_normal(1.0), _normal(0.0), _shifted(1.0)),
    "normals 2.5 apart": (_normal(2.5), _normal(0.0), _shifted(2.5)),
    "20 % memorised": (_memorised, _normal(0.0), lambda fpr: 0.2 * _shifted(4.0)(fpr) + 0.8 * fpr),
    "exponential": (lambda g, n: g.exponential(2.0, n), lambda g, n: g.exponential(1.0, n), lambda fpr: fpr**0.5),
    "Student's t": (lambda g, n: 1.5 * g.standard_t(3, n) + 0.5, lambda g, n: g.standard_t(3, n), _student),
}


def coverage(audit: str, n: int, fpr: float, audits: int, seed: int = 0) -> tuple[float, float]:
    """Share of `audits` of n + n records in which the interval at the stated FPR covers, and in which the one at the
    threshold drawn would."""
    members, nonmembers, truth = AUDITS[audit]
    generator, true_tpr = np.random.default_rng(seed), truth(fpr)
    covered = np.zeros(2)
    for _ in range(audits):
        point = operating_point(members(generator, n), nonmembers(generator, n), fpr)
        for i, (low, high) in enumerate((point.tpr_ci, point.tpr_ci_at_threshold)):
            covered[i] += low <= true_tpr <= high
    return tuple(covered / audits)


def main() -> None:
    audits = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print("n      FPR   stated FPR    threshold drawn")
    for n in (200, 500, 5000):
        for fpr in (0.01, 0.05, 0.25):
            shares = np.array([coverage(name, n, fpr, audits) for name in AUDITS])
            (low, naive_low), (high, naive_high) = shares.min(0), shares.max(0)
            print(f"{n:<6} {fpr:<5} {low:.3f}-{high:.3f}   {naive_low:.3f}-{naive_high:.3f}", flush=True)


if __name__ == "__main__":
    main()
