"""Claims on the TPR at a stated FPR: its interval covers, keeps quiet below its resolution, and pays for selection."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.tpr_coverage import AUDITS, coverage
from scipy.stats import norm

from kdleak import stats


@pytest.mark.parametrize("audit", AUDITS)
@pytest.mark.parametrize("n, fpr", [(200, 0.05), (200, 0.25), (500, 0.01), (500, 0.05), (500, 0.25)])
def test_the_interval_covers_the_tpr_at_the_stated_fpr(audit, n, fpr):
    """200 audits, reduced from the 1,000 of benchmarks/tpr_coverage.py: 95 % within three standard errors."""
    stated, drawn = coverage(audit, n, fpr, 200)
    assert 0.903 <= stated <= 0.997, stated
    assert drawn < stated + 0.01


def test_the_interval_of_the_threshold_drawn_does_not():
    """What was reported before: at 1 % FPR of 500 non-members it covers the stated TPR about half of the time."""
    assert coverage("normals 2.5 apart", 500, 0.01, 200)[1] < 0.65


def test_with_too_few_nonmembers_nothing_is_claimed_from_below():
    """At 1 % FPR, (1 - .01)^n > 2.5 % below 368 non-members: the lower end is 0, and coverage is above the level."""
    generator = np.random.default_rng(0)
    for n, claimed in ((200, False), (360, False), (380, True)):
        low, high = stats.tpr_interval(generator.normal(3, 1, 400), generator.normal(0, 1, n), 0.01)
        assert (low > 0) == claimed and high > 0.5
    assert coverage("normals 1 apart", 200, 0.01, 200)[0] > 0.95


@pytest.mark.parametrize("fpr", [0.0, 0.001, 0.01, 0.5, 1.0])
def test_the_interval_holds_the_tpr_and_stays_in_its_range(fpr):
    generator = np.random.default_rng(1)
    for m, n in ((1, 1), (3, 40), (40, 3), (200, 150)):
        for tie in (0, 3):
            point = stats.operating_point(
                generator.normal(1, 1, m).round(tie), generator.normal(size=n).round(tie), fpr
            )
            assert 0 <= point.tpr_ci[0] <= point.tpr <= point.tpr_ci[1] <= 1


def test_perfect_separation_is_sure_of_itself_and_more_so_with_more_records():
    lows = [stats.tpr_interval(np.arange(n) + 1.0, -np.arange(n), 0.05)[0] for n in (100, 1000)]
    assert 0.9 < lows[0] < lows[1] < 1


def test_scores_that_tie_at_the_top_give_no_tpr():
    members, nonmembers = np.repeat([1.0, 0.0], [60, 40]), np.repeat([1.0, 0.0], [20, 80])
    point = stats.operating_point(members, nonmembers, 0.05)
    assert point.tpr == point.tpr_ci[0] == 0 and point.tpr_ci[1] < 0.1


def test_the_best_of_several_attacks_is_covered_when_it_is_picked_for_being_best():
    """Eight attacks without signal: the largest TPR at 5 % FPR, in 200 audits, by one interval and by joint ones."""
    generator, alone, jointly = np.random.default_rng(2), 0, 0
    for _ in range(200):
        pairs = {str(k): (generator.normal(size=300), generator.normal(size=300)) for k in range(8)}
        points = stats.operating_points(pairs, 0.05)
        best = max(points, key=lambda name: points[name].tpr)
        jointly += points[best].tpr_ci[0] <= 0.05
        alone += stats.operating_point(*pairs[best], 0.05).tpr_ci[0] <= 0.05
    assert jointly >= 190 and alone < jointly
    assert stats.operating_points({"none": (np.array([]), np.ones(3))}, 0.05) == {}


def test_a_joint_interval_is_the_single_one_at_a_stricter_level():
    generator = np.random.default_rng(3)
    pairs = {name: (generator.normal(1, 1, 80), generator.normal(size=90)) for name in "abcd"}
    found = stats.operating_points(pairs, 0.25, 0.9)
    assert found["b"] == stats.operating_point(*pairs["b"], 0.25, 0.975)


def test_more_members_alone_do_not_end_the_doubt_about_the_threshold():
    generator = np.random.default_rng(4)
    nonmembers = generator.normal(size=500)
    widths = [np.ptp(stats.tpr_interval(generator.normal(2, 1, m), nonmembers, 0.01)) for m in (500, 50_000)]
    slope = norm.pdf(norm.isf(0.01) - 2) / norm.pdf(norm.isf(0.01))
    assert widths[1] > 0.6 * 2 * 1.96 * slope * np.sqrt(0.01 * 0.99 / 500) and widths[1] < widths[0]
