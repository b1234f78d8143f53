"""Claims on the statistics of a leak: equal to plain formulas, honest in coverage, defined in every corner."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from kdleak import stats
from kdleak.stats.operating_points import at_rate

scores = st.lists(st.integers(-4, 4), min_size=2, max_size=12).map(lambda v: np.array(v, float))


def plain_delong(pairs):
    """AUCs and their DeLong covariance, from the m x n comparisons, in float64."""
    aucs, v10, v01 = [], [], []
    for members, nonmembers in pairs:
        wins = (members[:, None] > nonmembers) + 0.5 * (members[:, None] == nonmembers)
        aucs.append(wins.mean())
        v10.append(wins.mean(1))
        v01.append(wins.mean(0))
    m, n = len(pairs[0][0]), len(pairs[0][1])
    return np.array(aucs), np.atleast_2d(np.cov(v10)) / m + np.atleast_2d(np.cov(v01)) / n


@given(scores, scores)
def test_auc_is_the_share_of_pairs_ranked_right_ties_counting_half(members, nonmembers):
    (expected,), covariance = plain_delong([(members, nonmembers)])
    found = stats.auc(members, nonmembers)
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert 0 <= found.low <= found.value + 1e-12 and found.value - 1e-12 <= found.high <= 1
    if covariance[0, 0] > 1e-12:
        reach = norm.ppf(0.975) * np.sqrt(covariance[0, 0]) / (expected * (1 - expected))
        middle = np.log(expected / (1 - expected))
        assert found.low == pytest.approx(1 / (1 + np.exp(reach - middle)), abs=1e-9)
        assert found.high == pytest.approx(1 / (1 + np.exp(-reach - middle)), abs=1e-9)


@given(scores, scores)
def test_auc_is_never_flipped(members, nonmembers):
    there, back = stats.auc(members, nonmembers), stats.auc(nonmembers, members)
    assert there.value + back.value == pytest.approx(1)
    assert there.p_value == pytest.approx(back.p_value, rel=1e-6, abs=1e-12)


def test_perfect_separation_keeps_an_interval_that_narrows_with_the_records():
    small, large = (stats.auc(np.arange(n) + 1.0, -np.arange(n)) for n in (10, 1000))
    assert small.value == small.high == large.value == 1
    assert small.low == pytest.approx(0.025 ** (1 / 10)) and large.low > 0.99
    assert large.p_value < 1e-100 and stats.auc(-np.arange(9), np.arange(9) + 1.0).high < 0.35


def test_constant_scores_show_nothing():
    found = stats.auc(np.zeros(50), np.zeros(60))
    assert found.value == 0.5 and found.low < 0.5 < found.high and found.p_value == 1


def test_an_empty_side_is_undefined():
    assert np.isnan(stats.auc(np.array([]), np.ones(3)).value)
    assert np.isnan(stats.balanced_accuracy(np.ones(1), np.ones(5)))


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_paired_difference_equals_the_plain_formula(seed):
    generator = np.random.default_rng(seed)
    first = generator.normal(1, 1, 30).round(1), generator.normal(0, 1, 25).round(1)
    second = first[0] + generator.normal(0, 1, 30), first[1] + generator.normal(0, 1, 25)
    (a, b), v = plain_delong([first, second])
    error = np.sqrt(v[0, 0] + v[1, 1] - 2 * v[0, 1])
    found = stats.auc_difference(first, second)
    assert found.value == pytest.approx(a - b)
    assert (found.low, found.high) == pytest.approx((a - b - 1.959964 * error, a - b + 1.959964 * error), abs=1e-6)
    assert found.p_value == pytest.approx(2 * norm.sf(abs(a - b) / error))
    x, y, z = a - 0.5, b - 0.5, 1.959964
    ratio = stats.inheritance(first, second)
    if y**2 > z**2 * v[1, 1]:
        assert ratio.value == pytest.approx(x / y)
        for theta in (ratio.low, ratio.high):  # Fieller: the ends solve (x - theta y)^2 = z^2 Var(x - theta y)
            spread = v[0, 0] - 2 * theta * v[0, 1] + theta**2 * v[1, 1]
            assert (x - theta * y) ** 2 == pytest.approx(z**2 * spread, rel=1e-4)
    else:
        assert np.isnan(ratio.low)


def test_a_score_does_not_differ_from_itself():
    generator = np.random.default_rng(0)
    pair = generator.normal(1, 1, 40), generator.normal(0, 1, 40)
    difference = stats.auc_difference(pair, pair)
    assert difference.value == 0 and difference.p_value == 1 and difference.low < 0 < difference.high
    ratio = stats.inheritance(pair, pair)
    assert ratio.value == ratio.low == ratio.high == pytest.approx(1)


def test_scores_of_different_records_cannot_be_paired():
    with pytest.raises(ValueError, match="different records"):
        stats.auc_difference((np.ones(3), np.ones(4)), (np.ones(3), np.ones(5)))


def test_holm_equals_the_step_down_definition():
    assert stats.holm([0.01, 0.04, 0.03, np.nan]) == pytest.approx([0.03, 0.06, 0.06, np.nan], nan_ok=True)
    assert stats.holm([0.9, 0.8]).tolist() == [1.0, 1.0] and len(stats.holm([])) == 0


@pytest.mark.parametrize("k, n", [(0, 7), (7, 7), (3, 20), (1, 1000), (0, 0)])
def test_clopper_pearson_equals_scipy(k, n):
    expected = binomtest(k, n).proportion_ci(method="exact") if n else (0.0, 1.0)
    assert stats.clopper_pearson(k, n) == pytest.approx(tuple(expected))


@given(scores, scores, st.sampled_from([0.0, 0.001, 0.05, 0.25, 0.5, 1.0]))
def test_the_threshold_keeps_the_fpr_and_wastes_none_of_it(members, nonmembers, fpr):
    point = stats.operating_point(members, nonmembers, fpr)
    assert point.false_positives == (nonmembers > point.threshold).sum() <= fpr * len(nonmembers) + 1e-9
    assert point.tpr == (members > point.threshold).mean()
    lower = max(nonmembers[nonmembers < point.threshold], default=-np.inf)
    next_lower = (nonmembers >= point.threshold).sum() if np.isfinite(lower) else len(nonmembers)
    assert point.threshold == -np.inf or next_lower > fpr * len(nonmembers) - 1e-9
    assert point.below_resolution == (0 < fpr * len(nonmembers) < 1)


def test_tpr_at_zero_fpr_counts_members_above_every_nonmember():
    point = stats.operating_point(np.array([3.0, 2.0, 1.0, 0.0]), np.array([1.0, 2.0]), 0.0)
    assert point.tpr == 0.25 and point.false_positives == 0 and not point.below_resolution


def test_roc_passes_the_ends_and_encloses_the_auc():
    generator = np.random.default_rng(2)
    members, nonmembers = generator.normal(0.7, 1, 80).round(1), generator.normal(0, 1, 70).round(1)
    fpr, tpr = stats.roc_curve(members, nonmembers)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all() and (np.diff(tpr) >= 0).all()
    assert np.trapezoid(tpr, fpr) == pytest.approx(stats.auc(members, nonmembers).value)


def test_roc_is_the_curve_over_all_thresholds_without_points_on_a_straight_line():
    generator = np.random.default_rng(3)
    members, nonmembers = generator.normal(1, 1, 60).round(2), generator.normal(0, 1, 90).round(2)
    corners = np.column_stack(stats.roc_curve(members, nonmembers))
    turns = np.diff(corners[:-1], axis=0)[:, ::-1] * np.diff(corners[1:], axis=0)
    assert (np.abs(turns[:, 0] - turns[:, 1]) > 1e-12).all() and len(corners) < 100
    for threshold in np.concatenate([members, nonmembers]):
        point = np.array([(nonmembers >= threshold).mean(), (members >= threshold).mean()])
        detour = np.linalg.norm(corners - point, axis=1)
        segments = np.linalg.norm(np.diff(corners, axis=0), axis=1)
        assert np.isclose(detour[:-1] + detour[1:], segments, atol=1e-12).any()


def test_epsilon_bound_takes_the_stronger_of_direct_and_mirrored_form():
    assert stats.epsilon_bound(0.5, 0.01) == pytest.approx(np.log(50))
    assert stats.epsilon_bound(0.99, 0.5) == pytest.approx(np.log(50))
    assert stats.epsilon_bound(0.2, 0.5) == 0 and stats.epsilon_bound(0.5, 0.01, delta=0.1) == pytest.approx(np.log(40))


def test_epsilon_of_randomised_response_is_never_overstated_beyond_its_level():
    """Scores that obey epsilon = 1 exactly: the 95 % bound may exceed it in at most 5 % of audits (400, so 8 %)."""
    generator, keep = np.random.default_rng(3), np.e / (1 + np.e)
    over, positive = 0, 0
    for _ in range(400):
        truth = np.where(generator.random(300) < keep, 1.0, 0.0) + 1e-3 * generator.random(300)
        lie = np.where(generator.random(300) < keep, 0.0, 1.0) + 1e-3 * generator.random(300)
        bound = stats.epsilon_lower_bound(truth, lie)
        over, positive = over + (bound > 1), positive + (bound > 0.3)
    assert over <= 32 and positive > 200


def test_balanced_accuracy_of_a_blind_attack_averages_one_half():
    generator = np.random.default_rng(4)
    null = [stats.balanced_accuracy(generator.normal(size=40), generator.normal(size=40)) for _ in range(400)]
    assert abs(np.mean(null) - 0.5) < 0.01
    assert stats.balanced_accuracy(np.arange(20) + 1.0, -np.arange(20)) == 1


@pytest.mark.parametrize("separation, n", [(0.0, 150), (1.0, 150), (1.0, 500), (2.3, 200)])
def test_auc_intervals_cover_the_truth_at_their_level(separation, n):
    """1,000 audits of two unit normals `separation` apart: AUC = Phi(separation / sqrt 2)."""
    generator, truth = np.random.default_rng(10), norm.cdf(separation / np.sqrt(2))
    hits = 0
    for _ in range(1000):
        found = stats.auc(generator.normal(separation, 1, n), generator.normal(0, 1, n))
        hits += found.low <= truth <= found.high
    assert 930 <= hits <= 970, hits


@pytest.mark.parametrize("fpr", [0.25, 0.05, 0.01])
def test_tpr_intervals_at_the_threshold_drawn_cover_its_own_tpr(fpr):
    """The truth is the TPR of the threshold that the audit chose: P(member > threshold)."""
    generator, hits = np.random.default_rng(11), 0
    for _ in range(1000):
        threshold, found, _ = at_rate(generator.normal(1.5, 1, 1000), generator.normal(0, 1, 1000), fpr)
        low, high = stats.clopper_pearson(found, 1000)
        hits += low <= norm.sf(threshold - 1.5) <= high
    assert 930 <= hits <= 970, hits


def test_inheritance_intervals_cover_the_truth_at_their_level():
    generator, hits = np.random.default_rng(12), 0
    truth = (norm.cdf(0.6 / np.sqrt(2)) - 0.5) / (norm.cdf(2 / np.sqrt(2)) - 0.5)
    for _ in range(1000):
        shared = generator.normal(size=(2, 200))
        own = 0.6 * shared + 0.8 * generator.normal(size=(2, 200))
        ratio = stats.inheritance((own[0] + 0.6, own[1]), (shared[0] + 2, shared[1]))
        hits += ratio.low <= truth <= ratio.high
    assert 930 <= hits <= 970, hits
