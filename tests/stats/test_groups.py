"""Claims on groups: records that share a context count as one draw, and a group of one record changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from kdleak import stats
from kdleak.stats.delong import covariance, effective_sizes, influence

SINGLES = (np.arange(60), 100 + np.arange(50))


def grouped(generator: np.random.Generator, groups: int, shift: float, share: float = 0.8) -> tuple:
    """Scores of `groups` groups of 1 to 9 records, `share` of their variance common to the group; and the owners."""
    owner = np.repeat(np.arange(groups), generator.integers(1, 10, groups))
    common, own = generator.normal(size=groups)[owner], generator.normal(size=len(owner))
    return shift + np.sqrt(share) * common + np.sqrt(1 - share) * own, owner


def test_groups_of_one_record_are_no_groups():
    generator = np.random.default_rng(0)
    first = generator.normal(1, 1, 60).round(1), generator.normal(size=50).round(1)
    second = first[0] + generator.normal(size=60), first[1] + generator.normal(size=50)
    for plain, by_group in (
        (stats.auc(*first), stats.auc(*first, groups=SINGLES)),
        (stats.auc_difference(first, second), stats.auc_difference(first, second, groups=SINGLES)),
        (stats.inheritance(first, second), stats.inheritance(first, second, groups=SINGLES)),
    ):
        assert list(vars(by_group).values()) == pytest.approx(list(vars(plain).values()))
    hits = generator.random(60) < 0.4
    assert stats.mean_gap(hits, hits[:50], *SINGLES) == stats.mean_gap(hits, hits[:50])
    assert stats.operating_point(*first, 0.05, groups=SINGLES) == stats.operating_point(*first, 0.05)
    assert stats.epsilon_lower_bound(*first, groups=SINGLES) == stats.epsilon_lower_bound(*first)
    assert stats.balanced_accuracy(*first, groups=SINGLES) == stats.balanced_accuracy(*first)
    a, b = first[0], second[0]
    for alone, by_group in (
        (stats.record_correlation(a, b, 0), stats.record_correlation(a, b, 0, groups=SINGLES[0])),
        (stats.overlap_at_top(a, b, 0.1), stats.overlap_at_top(a, b, 0.1, SINGLES[0])),
    ):
        assert alone == by_group


def test_the_clustered_variance_is_the_plain_formula():
    """Obuchowski (1997): sums within groups, squared; a group on both sides adds both of its sums before squaring."""
    generator = np.random.default_rng(1)
    members, nonmembers = generator.normal(1, 1, 30), generator.normal(size=20)
    groups = np.repeat(np.arange(10), 3), np.repeat(np.arange(8, 13), 4)
    wins = (members[:, None] > nonmembers).astype(float)
    total = 0.0
    for group in range(13):
        inside = (wins.mean(1) - wins.mean())[groups[0] == group].sum() / 30 * np.sqrt(10 / 9)
        outside = (wins.mean(0) - wins.mean())[groups[1] == group].sum() / 20 * np.sqrt(5 / 4)
        total += (inside + outside) ** 2
    found = covariance([stats.placements(members, nonmembers)], groups)
    assert found[0, 0] == pytest.approx(total)
    assert stats.Leak.of(members, nonmembers, groups).error == pytest.approx(np.sqrt(total))


def test_a_table_written_twice_says_no_more_than_once():
    generator = np.random.default_rng(2)
    members, nonmembers = generator.normal(1, 1, 40), generator.normal(size=30)
    groups = np.tile(np.arange(40), 2), np.tile(np.arange(50, 80), 2)
    twice, once = stats.auc(np.tile(members, 2), np.tile(nonmembers, 2), groups=groups), stats.auc(members, nonmembers)
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))
    labels = np.tile(generator.random(40) < 0.3, 2), np.tile(generator.random(30) < 0.1, 2)
    doubled, alone = stats.mean_gap(*labels, *groups), stats.mean_gap(labels[0][:40], labels[1][:30])
    assert doubled.high - doubled.low == pytest.approx(alone.high - alone.low, rel=0.06)


def test_one_group_a_side_has_no_variance_to_estimate():
    groups = np.zeros(9), np.ones(9)
    assert not influence([stats.placements(np.arange(9.0), np.arange(9.0))], groups).size
    assert stats.auc(np.arange(9.0) + 3, np.arange(9.0), groups=groups).low == pytest.approx(0, abs=0.3)


@pytest.mark.parametrize("separation", [0.0, 1.0])
def test_auc_intervals_of_grouped_records_cover_the_truth(separation):
    """400 audits of 60 + 60 groups: with the groups about 95 %, without them far less."""
    generator, truth, hits = np.random.default_rng(3), norm.cdf(separation / np.sqrt(2)), np.zeros(2)
    for _ in range(400):
        (members, inside), (nonmembers, outside) = (grouped(generator, 60, s) for s in (separation, 0.0))
        for i, groups in enumerate(((inside, 1000 + outside), None)):
            found = stats.auc(members, nonmembers, groups=groups)
            hits[i] += found.low <= truth <= found.high
    assert 0.92 <= hits[0] / 400 <= 0.98 and hits[1] / 400 < 0.75, hits


def test_binary_gaps_of_grouped_records_cover_the_truth():
    """400 audits of 80 + 80 groups whose records are hits together: with the groups about 95 %, without far less."""
    generator, hits = np.random.default_rng(4), np.zeros(2)
    truth = norm.cdf(-0.5) - norm.cdf(-1.3)
    for _ in range(400):
        (a, inside), (b, outside) = grouped(generator, 80, -0.5, 0.9), grouped(generator, 80, -1.3, 0.9)
        for i, groups in enumerate(((inside, outside), (None, None))):
            found = stats.mean_gap(a > 0, b > 0, *groups)
            hits[i] += found.low <= truth <= found.high
    assert 0.92 <= hits[0] / 400 <= 0.98 and hits[1] / 400 < 0.75, hits


def test_where_nothing_is_a_hit_the_groups_set_the_width():
    none = np.zeros(100)
    alone, by_ten = stats.mean_gap(none, none), stats.mean_gap(none, none, *([np.repeat(np.arange(10), 10)] * 2))
    ten = stats.mean_gap(none[:10], none[:10])
    assert (by_ten.low, by_ten.high) == pytest.approx((ten.low, ten.high)) and by_ten.high > 3 * alone.high


def test_a_relabelling_moves_groups_whole_and_keeps_their_number():
    generator = np.random.default_rng(5)
    groups = np.repeat(np.arange(12), np.tile([1, 2, 5], 4))
    is_member = groups % 2 == 0
    labels = stats.relabellings(is_member, 500, generator, groups)
    first = np.unique(groups, return_index=True)[1]
    assert (labels == labels[:, first][:, groups]).all() and (labels[:, first].sum(1) == 6).all()
    assert np.abs(labels[:, first].mean(0) - 0.5).max() < 0.1
    records = stats.relabellings(is_member, 50, np.random.default_rng(6))
    expected = np.random.default_rng(6).permuted(np.tile(is_member, (50, 1)), axis=1)
    assert (records == expected).all() and (records.sum(1) == is_member.sum()).all()


def test_a_group_on_both_sides_exchanges_labels_within_itself():
    groups, is_member = np.array([0, 0, 0, 1, 2]), np.array([True, False, False, True, False])
    labels = stats.relabellings(is_member, 400, np.random.default_rng(7), groups)
    assert (labels[:, :3].sum(1) == 1).all() and np.abs(labels[:, :3].mean(0) - 1 / 3).max() < 0.1
    assert (labels[:, 3] != labels[:, 4]).all()


def test_a_permutation_test_by_group_keeps_its_level():
    """200 audits without signal whose groups score alike: relabelling records rejects far too often, groups do not."""
    generator, rejected = np.random.default_rng(8), np.zeros(2)
    for _ in range(200):
        scores, owner = grouped(generator, 40, 0.0)
        is_member = owner % 2 == 0
        ranks = stats.mid_ranks(scores)

        def area(labels, ranks=ranks):
            m = labels.sum(-1)
            return (labels @ ranks - m * (m + 1) / 2) / (m * (len(ranks) - m))

        for i, groups in enumerate((owner, None)):
            null = area(stats.relabellings(is_member, 200, generator, groups))
            rejected[i] += np.mean(null >= area(is_member)) <= 0.05
    assert rejected[0] / 200 <= 0.1 and rejected[1] / 200 > 0.15, rejected


def test_the_effective_number_of_records_is_kishs():
    groups = np.repeat(np.arange(3), [1, 2, 5]), np.arange(4)
    assert effective_sizes((8, 4), groups) == pytest.approx((64 / 30, 4)) and effective_sizes((8, 4), None) == (8, 4)


@pytest.mark.parametrize(("fpr", "shift"), [(0.05, 1.0), (0.25, 1.0), (0.05, 2.5)])
def test_tpr_intervals_of_grouped_records_cover_the_truth(fpr, shift):
    """300 audits of 120 + 120 groups of 1 to 9 records that have nine tenths of their score in common: with the groups
    at least 93 %, without them far less."""
    generator, truth, hits = np.random.default_rng(9), norm.sf(norm.isf(fpr) - shift), np.zeros(2)
    for _ in range(300):
        (members, inside), (nonmembers, outside) = (grouped(generator, 120, s, 0.9) for s in (shift, 0.0))
        for i, groups in enumerate(((inside, 1000 + outside), None)):
            low, high = stats.tpr_interval(members, nonmembers, fpr, groups=groups)
            hits[i] += low <= truth <= high
    assert hits[0] / 300 >= 0.93 and hits[1] / 300 < 0.8, hits


def test_an_epsilon_of_grouped_records_is_not_overstated():
    """Randomised response of epsilon 1 whose coin is a group's of eight records: each record for a draw overstates."""
    generator, keep, over = np.random.default_rng(10), np.e / (1 + np.e), np.zeros(2)
    owner = np.repeat(np.arange(40), 8)
    for _ in range(200):
        coins = generator.random((2, 40)) < keep
        noise = 1e-3 * generator.random((2, 320))
        scores = coins[0][owner] + noise[0], 1.0 - coins[1][owner] + noise[1]
        for i, groups in enumerate(((owner, 1000 + owner), None)):
            over[i] += stats.epsilon_lower_bound(*scores, groups=groups) > 1
    assert over[0] / 200 <= 0.05 and over[1] / 200 > 0.1, over


def test_a_threshold_is_not_measured_on_the_groups_that_chose_it():
    """Ten tight groups a side without signal: in halves by record each group would stand in both."""
    generator, found = np.random.default_rng(11), []
    for _ in range(200):
        (members, inside), (nonmembers, outside) = (grouped(generator, 10, 0.0, 0.99) for _ in range(2))
        pair = members, nonmembers
        found.append([stats.balanced_accuracy(*pair, (inside, 1000 + outside)), stats.balanced_accuracy(*pair)])
    by_group, by_record = np.mean(found, 0)
    assert abs(by_group - 0.5) < 0.03 and by_record > 0.58


def test_the_bootstrap_of_a_rank_correlation_draws_groups():
    """100 audits of 60 groups of records that are nearly one: the truth is covered with the groups, not without."""
    generator, truth, hits = np.random.default_rng(12), 6 / np.pi * np.arcsin(0.5 / 2), np.zeros(2)
    for seed in range(100):
        owner = np.repeat(np.arange(60), 6)
        pairs = generator.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 60)[owner]
        a, b = (pairs + 0.05 * generator.normal(size=pairs.shape)).T
        for i, groups in enumerate((owner, None)):
            found = stats.record_correlation(a, b, seed, draws=300, groups=groups)
            hits[i] += found.low <= truth <= found.high
    assert hits[0] >= 87 and hits[1] < 75, hits


def test_the_bootstrap_of_techniques_draws_groups():
    generator = np.random.default_rng(13)
    owner = np.repeat(np.arange(40), 10)
    member = owner < 20
    leaks = np.array([s * member + generator.normal(size=40)[owner] for s in (0.0, 0.1, 0.2, 0.3)])
    gaps = np.array([s * member + generator.normal(size=40)[owner] for s in (0.0, 0.1, 0.2, 0.3)])
    widths = []
    for groups in (owner, None):
        found = stats.technique_correlation(leaks, gaps, member, 0, draws=200, groups=groups)
        widths.append(found.high - found.low)
    assert widths[0] > widths[1]


def test_a_resample_holds_groups_whole():
    owner = np.repeat(np.arange(20), 3)
    drawn = stats.resamples(60, owner, 0, 50)
    assert (drawn.reshape(50, 20, 3) == drawn[:, ::3, None]).all() and (drawn.sum(1) == 60).all()


@pytest.mark.parametrize("tie", [9, 0])
def test_the_intervals_of_relabellings_are_delongs(tie):
    generator = np.random.default_rng(14)
    scores, owner = grouped(generator, 24, 0.0, 0.5)
    scores, is_member = scores.round(tie), owner % 2 == 0
    for groups in (owner, None):
        labels = stats.relabellings(is_member, 60, generator, groups)
        excluded = 0
        for row in labels:
            sides = None if groups is None else (groups[row], groups[~row])
            area = stats.auc(scores[row], scores[~row], groups=sides)
            excluded += area.low > 0.5 or area.high < 0.5
        assert stats.excluded_share(scores, labels, groups) == pytest.approx(excluded / 60)


def test_intervals_of_a_few_tight_groups_are_called_too_narrow():
    generator = np.random.default_rng(15)
    shares = []
    for count in (100, 6):
        owner = np.repeat(np.arange(count), 12)
        scores, is_member = (
            generator.normal(size=count)[owner] + 0.1 * generator.normal(size=12 * count),
            owner % 2 == 0,
        )
        labels = stats.relabellings(is_member, 400, generator, owner)
        shares.append(stats.excluded_share(scores, labels, owner))
    assert shares[0] < 0.09 and shares[1] > 0.1, shares
    assert np.isnan(stats.excluded_share(scores, np.array([owner == 0]), owner))
