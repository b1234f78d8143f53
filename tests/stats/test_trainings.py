"""A mean over trainings: its error holds what differs between trainings and what all of them share, the records."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as reference

from kdleak.stats.contrasts import Contrast, Leak
from kdleak.stats.delong import covariance
from kdleak.stats.trainings import MeanLeak, Spread


def runs_of(rng: np.random.Generator, shifts: list[float], n: int = 80, own: float = 0.5) -> MeanLeak:
    """A leak a training: what makes a record easy is the same in all of them."""
    common = rng.normal(size=2 * n)
    scores = [common + own * rng.normal(size=2 * n) for _ in shifts]
    return MeanLeak({k: Leak.of(s[:n] + shift, s[n:]) for k, (s, shift) in enumerate(zip(scores, shifts, strict=True))})


def test_the_error_of_a_mean_is_that_between_trainings_and_that_of_the_records_they_share():
    leaks = runs_of(np.random.default_rng(0), [0.5, 0.7, 0.6, 0.9])
    values = [leak.value for leak in leaks.by_seed.values()]
    between = sum((v - sum(values) / 4) ** 2 for v in values) / 3 / 4
    matrix = covariance([(leak.members, leak.nonmembers) for leak in leaks.by_seed.values()])
    shared = sum(matrix[i, j] for i in range(4) for j in range(4) if i != j) / 12
    found = Contrast.of("", leaks)
    assert shared > 0 and found.runs == 4
    assert found.value == pytest.approx(sum(values) / 4)
    assert found.error == pytest.approx(math.sqrt(between + shared))
    assert found.between == pytest.approx(math.sqrt(between))
    reach = math.sqrt(reference.t.ppf(0.975, 3) ** 2 * between + reference.norm.ppf(0.975) ** 2 * shared)
    assert found.interval == pytest.approx((found.value - reach, found.value + reach))


@pytest.mark.parametrize("value", [0.003, 0.02, 0.06, 0.3])
def test_a_p_value_is_the_level_whose_interval_ends_at_zero(value):
    found = Contrast("", value, math.hypot(0.01, 0.008), 9, runs=3, between=0.01)
    p = found.p_value
    ends = reference.t.isf(p / 2, 2) ** 2 * 0.01**2 + reference.norm.isf(p / 2) ** 2 * 0.008**2
    assert math.sqrt(ends) == pytest.approx(value, rel=1e-6)
    without_records = Contrast("", value, 0.01, 9, runs=3, between=0.01)  # the run is the unit: a paired t test
    assert without_records.p_value == pytest.approx(2 * reference.t.sf(value / 0.01, 2), rel=1e-6)


def test_trainings_that_agree_leave_the_error_of_the_records():
    leak = Leak.of(*np.random.default_rng(1).normal(size=(2, 60)))
    same, alone = Contrast.of("", MeanLeak({0: leak, 1: leak, 2: leak})), Contrast.of("", leak)
    assert (same.error, same.p_value) == pytest.approx((alone.error, alone.p_value))
    assert same.detectable() == pytest.approx(alone.detectable())


def test_sums_and_differences_are_paired_by_seed_and_one_model_stands_beside_all():
    rng = np.random.default_rng(2)
    first, second, baseline = (
        runs_of(rng, [0.5, 0.6, 0.9]),
        runs_of(rng, [0.2, 0.3]),
        Leak.of(*rng.normal(size=(2, 80))),
    )
    apart = first - second
    assert set(apart.by_seed) == {0, 1} and apart.n == 160
    for seed, leak in apart.by_seed.items():
        assert leak.value == pytest.approx(first.by_seed[seed].value - second.by_seed[seed].value)
    above = (first - baseline) * 0.5
    assert above.value == pytest.approx((first.value - baseline.value) / 2) and above.runs == 3
    one = Contrast.of("", MeanLeak({0: baseline}))
    assert (one.value, one.error, one.runs) == pytest.approx((baseline.value, baseline.error, 1))


@pytest.mark.parametrize("runs", [2, 3, 5])
@pytest.mark.parametrize(("between", "records"), [(0.02, 0.005), (0.005, 0.02), (0.01, 0.01), (0.02, 0.0)])
def test_intervals_cover_the_mean_over_trainings_and_records(runs, between, records):
    """4,000 studies: a figure is the mean, the records' chance that trainings share, and each training's own."""
    rng, covered, sure = np.random.default_rng(3), 0, 0
    for _ in range(4000):
        values = 0.05 + records * rng.normal() + between * rng.normal(size=runs)
        found = Contrast.over("", Spread.of(list(values), records**2), 100)
        low, high = found.interval
        covered += low <= 0.05 <= high
        sure += abs(found.value - 0.05) > found._reach(0.0005)
    assert 0.94 <= covered / 4000 <= 0.995 and sure <= 11  # at a level of .001, four are expected
