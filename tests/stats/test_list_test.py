"""The test of a whole list: against plain loops, uniform without an effect, and powerful with one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest, norm

from kdleak.stats import mid_ranks
from kdleak.stats.list_test import HALVINGS, PENALTY, PRIOR, CrossFit, list_test, normal_scores, standard, without


def lists(seed: int, n: int, k: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Signals (2 n, k) that have half of their variance in common, and who is a member."""
    generator = np.random.default_rng(seed)
    member = np.arange(2 * n) < n
    signals = generator.normal(size=(2 * n, 1)) + generator.normal(size=(2 * n, k)) + shift * member[:, None]
    return standard(signals), member


def by_loops(fit: CrossFit, member: np.ndarray, signals: np.ndarray) -> float:
    """The statistic as its definition reads: a half at a time, with the signals of each half about their mean."""
    gaps = []
    for column in range(2 * HALVINGS):
        train = fit.inside[:, column] == 1
        n, k = train.sum(), signals.shape[1]
        z = signals[train] - signals[train].mean(0)
        toward = z.T @ member[train] + PRIOR * np.sqrt(n)
        weights = np.linalg.solve(z.T @ z + PENALTY * n * np.eye(k), toward)
        scores, held = signals[~train] @ weights, member[~train]
        gaps.append((scores[held].mean() - scores[~held].mean()) / scores.std())
    return float(np.mean(gaps))


def test_the_statistic_is_that_of_plain_loops_and_so_is_one_with_an_effect_planted():
    signals, member = lists(0, 20, 3)
    fit = CrossFit(signals, np.arange(40), seed=1)
    assert fit.statistic(member[None])[0] == pytest.approx(by_loops(fit, member, signals))
    used, shift = member & (np.arange(40) % 3 == 0), np.array([0.5, 1.0, -0.2])
    planted = fit.planted(member[None], used[None], shift)[0]
    assert planted == pytest.approx(by_loops(fit, member, signals + used[:, None] * shift))
    assert planted > fit.statistic(member[None])[0]


def test_halves_keep_groups_whole_and_no_record_is_scored_by_its_own_label():
    signals, member = lists(1, 30, 3)
    groups = np.arange(60) // 3
    fit = CrossFit(signals, groups)
    assert all(len(np.unique(fit.inside[groups == g], axis=0)) == 1 for g in range(20))
    np.testing.assert_array_equal(fit.inside[:, :HALVINGS] + fit.inside[:, HALVINGS:], 1)
    changed = member.copy()
    changed[:3] = ~changed[:3]  # the first group
    np.testing.assert_allclose(fit.scores(changed)[:3], fit.scores(member)[:3])
    assert not np.allclose(fit.scores(changed)[3:], fit.scores(member)[3:])


def test_p_is_uniform_where_lists_were_parted_by_chance():
    """200 pairs of lists: skewed signals, groups of three that have most of their variance in common."""
    found = []
    for seed in range(200):
        generator = np.random.default_rng([seed, 3])
        groups = np.repeat(np.arange(30), 3)
        signals = normal_scores(np.exp(2 * generator.normal(size=(30, 5))[groups] + generator.normal(size=(90, 5))))
        member = generator.permutation(np.arange(30) < 15)[groups]
        found.append(list_test(CrossFit(signals, groups, seed), member, 199, seed, groups).p_value)
    assert kstest(found, "uniform").pvalue > 0.05, np.histogram(found, 10)
    assert sum(p <= 0.01 for p in found) <= 5


def test_many_weak_signals_together_are_found_where_few_records_cannot_show_them():
    """Each signal alone tells members with an AUC of .58."""
    found = [list_test(CrossFit(*_fit(seed)), np.arange(200) < 100, 199, seed).p_value for seed in range(20)]
    assert np.mean(np.array(found) <= 0.01) >= 0.6


def _fit(seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    signals = generator.normal(size=(200, 8)) + 0.2 * np.sqrt(2) * (np.arange(200) < 100)[:, None]
    return standard(signals), np.arange(200)


def test_normal_scores_and_what_other_columns_leave():
    column = np.array([3.0, np.nan, 1.0, 2.0, 2.0])
    scores = normal_scores(column[:, None])[:, 0]
    defined = norm.ppf((mid_ranks(column[[0, 2, 3, 4]]) - 0.5) / 4)
    by_hand = np.array([defined[0], 0.0, *defined[1:]])
    np.testing.assert_allclose(scores, (by_hand - by_hand.mean()) / by_hand.std())
    assert not normal_scores(np.full((4, 1), np.nan)).any() and not normal_scores(np.ones((4, 1))).any()
    other, own = standard(np.random.default_rng(0).normal(size=(50, 2))).T
    left = without(0.6 * other + own, other[:, None])
    assert abs(left @ other) < 1e-9 and np.corrcoef(left, own)[0, 1] > 0.95
    np.testing.assert_array_equal(without(own, np.zeros((50, 0))), own)
    assert not without(other, other[:, None]).any()
