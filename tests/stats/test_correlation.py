"""Rank correlations and overlaps of what membership and memorization say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from kdleak.stats.correlation import (
    jaccard_at_top,
    overlap_at_top,
    percentiles,
    record_correlation,
    resampled_overlap,
    resamples,
    spearman,
    technique_correlation,
    weighted_spearman,
)


def test_spearman_is_scipys_with_ties():
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 5, 50), generator.integers(0, 5, 50)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert np.isnan(spearman(np.ones(5), np.arange(5)))


def test_a_score_agrees_with_itself_and_disagrees_with_its_opposite():
    scores = np.random.default_rng(0).normal(size=200)
    same, opposite = record_correlation(scores, scores, 0), record_correlation(scores, -scores, 0)
    assert (same.value, same.low, same.high) == pytest.approx((1, 1, 1))
    assert opposite.value == pytest.approx(-1)
    assert jaccard_at_top(scores, scores, 0.05) == 1 and jaccard_at_top(scores, -scores, 0.05) == 0


def test_the_interval_of_a_correlation_covers_the_truth():
    generator = np.random.default_rng(0)
    rho = 6 / np.pi * np.arcsin(0.6 / 2)  # Spearman's of a normal pair with correlation .6
    covered = 0
    for seed in range(60):
        x, y = generator.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 150).T
        found = record_correlation(x, y, seed, draws=300)
        covered += found.low <= rho <= found.high
    assert stats.binomtest(covered, 60, 0.95).pvalue > 1e-3


def test_undefined_scores_are_left_out():
    a, b = np.array([1.0, 2, 3, 4, np.nan]), np.array([1.0, 2, 3, np.nan, 5])
    found = record_correlation(a, b, 0)
    assert (found.value, found.n) == (pytest.approx(1), 3)
    assert np.isnan(record_correlation(a[:2], b[:2], 0).value)


def test_overlap_by_hand():
    a = np.array([9.0, 8, 7, 6, 0, 0, 0, 0, 0, 0])
    b = np.array([9.0, 8, 0, 0, 7, 6, 0, 0, 0, 0])
    assert jaccard_at_top(a, b, 0.2) == 1
    assert jaccard_at_top(a, b, 0.4) == pytest.approx(2 / 6)
    # One place for two tied records: each is in by half.
    assert jaccard_at_top(np.array([1.0, 1, 0, 0]), np.array([2.0, 1, 0, 0]), 0.25) == pytest.approx(0.5 / 1.5)


def test_overlap_without_information_is_what_chance_gives():
    # 50 of 500 places at random in each: 5 in both, 95 in either.
    assert jaccard_at_top(np.zeros(500), np.arange(500.0), 0.1) == pytest.approx(5 / 95)


def scores(strengths: list[float], n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    member = np.arange(n) < n // 2
    return np.array([generator.normal(size=n) + s * member for s in strengths]), member


def test_techniques_ranked_alike_correlate_and_oppositely_do_not():
    membership, member = scores([0.0, 0.5, 1.0, 1.5])
    memorization, _ = scores([0.2, 0.7, 1.2, 1.7])
    alike = technique_correlation(membership, memorization, member, 0, draws=200)
    opposite = technique_correlation(membership, memorization[::-1], member, 0, draws=200)
    assert alike.value == 1 and opposite.value == -1
    assert alike.low > 0.5 and opposite.high < -0.5 and alike.n == 4


def test_the_interval_is_wide_where_techniques_cannot_be_told_apart():
    membership, member = scores([0.5, 0.5, 0.5, 0.5])
    memorization, _ = scores([0.5, 0.5, 0.5, 0.5])
    found = technique_correlation(
        membership, memorization[:, ::-1][:, np.argsort(~member[::-1], kind="stable")], member, 0, draws=200
    )
    assert found.low < 0 < found.high


def test_two_techniques_have_no_ranking_to_compare():
    matrix, member = scores([0.0, 1.0])
    assert np.isnan(technique_correlation(matrix, matrix, member, 0).value)


def test_the_overlap_of_the_most_exposed_does_not_depend_on_the_order_of_ties():
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 4, 100).astype(float), generator.integers(0, 4, 100).astype(float)
    found = overlap_at_top(a, b, 0.1)
    for _ in range(5):
        order = generator.permutation(100)
        assert overlap_at_top(a[order], b[order], 0.1).overlap == pytest.approx(found.overlap)
    assert found.k == 10 and found.by_chance == pytest.approx(0.1)


def test_scores_that_tie_throughout_overlap_as_chance_has_it():
    """Ordered by place, two constant scores would have all of their most exposed in common."""
    found = overlap_at_top(np.ones(200), np.ones(200), 0.1)
    assert found.overlap == pytest.approx(0.1) and found.p_value > 0.5


def test_without_ties_the_overlap_is_counted_and_its_test_hypergeometric():
    generator = np.random.default_rng(1)
    a = generator.permutation(300).astype(float)
    b = a + generator.normal(scale=40, size=300)
    found = overlap_at_top(a, b, 0.1)
    common = len(set(np.argsort(-a)[:30]) & set(np.argsort(-b)[:30]))
    assert found.overlap == pytest.approx(common / 30)
    assert found.p_value == pytest.approx(stats.hypergeom.sf(common - 1, 300, 30, 30))
    assert overlap_at_top(a, -a, 0.1).p_value == pytest.approx(1)


def test_the_interval_of_an_overlap_covers_the_truth():
    """100 audits of 500 members, the top tenth by each of two scores with correlation .8: the overlap is .56."""
    generator = np.random.default_rng(2)
    big = generator.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], 400_000).T
    truth = overlap_at_top(*big, 0.1).overlap
    covered, narrow = 0, 0
    for seed in range(100):
        a, b = generator.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], 500).T
        low, high = percentiles(resampled_overlap(a, b, 0.1, resamples(500, None, seed, 300)))
        covered += low <= truth <= high
        narrow += high - low < 0.35
    assert 0.5 < truth < 0.6 and covered >= 88 and narrow == 100, (truth, covered)


def test_a_resample_of_one_each_is_the_overlap_itself_with_and_without_ties():
    generator = np.random.default_rng(3)
    for a, b in (generator.normal(size=(2, 200)), generator.integers(0, 5, (2, 200)).astype(float)):
        once = resampled_overlap(a, b, 0.1, np.ones((1, 200), int))[0]
        assert once == pytest.approx(overlap_at_top(a, b, 0.1).overlap)
        assert weighted_spearman(a, b, np.ones((1, 200), int))[0] == pytest.approx(spearman(a, b))
