"""The interval of a mean: Student's where each record is a draw, wider where records come in groups."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from kdleak import stats


def test_of_records_of_their_own_it_is_students_cut_at_the_bounds():
    values = np.random.default_rng(0).beta(2, 5, 30)
    mean, low, high = stats.mean_interval(np.append(values, np.nan))
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((values.mean(), expected.low, expected.high))
    assert stats.mean_interval(np.array([0.9, 1.0]))[2] == 1.0
    assert stats.mean_interval(np.array([-0.9, -1.0]), least=-1.0)[1] == -1.0


def test_shares_of_zeros_and_ones_have_wilsons_and_keep_their_width():
    for hits in (0, 3, 20):
        values = np.arange(20) < hits
        expected = scipy.stats.binomtest(hits, 20).proportion_ci(method="wilson")
        assert stats.mean_interval(values) == pytest.approx((hits / 20, expected.low, expected.high))


def test_a_table_written_twice_says_no_more_than_once():
    values = np.random.default_rng(1).random(40)
    twice = stats.mean_interval(np.tile(values, 2), np.tile(np.arange(40), 2))
    assert twice == pytest.approx(stats.mean_interval(values))


@pytest.mark.parametrize("values", [np.empty(0), np.array([0.5]), np.array([0.2, 0.4])])
def test_fewer_than_two_groups_have_no_interval(values):
    assert np.isnan(stats.mean_interval(values, np.zeros(len(values)))[1:]).all()


def test_intervals_of_grouped_records_cover_the_truth():
    """400 samples of 30 groups of one to nine records: with the groups about 95 %, without them far less."""
    generator, hits = np.random.default_rng(2), np.zeros(2)
    for _ in range(400):
        groups = np.repeat(np.arange(30), generator.integers(1, 10, 30))
        values = scipy.stats.norm.cdf(
            0.9 * generator.normal(size=30)[groups] + 0.44 * generator.normal(size=len(groups))
        )
        for i, owners in enumerate((groups, None)):
            _, low, high = stats.mean_interval(values, owners)
            hits[i] += low <= 0.5 <= high
    assert 0.92 <= hits[0] / 400 <= 0.98 and hits[1] / 400 < 0.75, hits
