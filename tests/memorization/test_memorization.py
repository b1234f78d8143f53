"""Memorization figures on cases that can be counted by hand, and on models that know everything, or nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kdleak.data.encoding import EncodedRecord
from kdleak.inference.greedy import ENDED, correct_prefix, greedy_continuations
from kdleak.inference.scoring import token_statistics
from kdleak.memorization.verbatim import (
    edit_similarity,
    exact_match,
    longest_correct_prefix,
    reproduced,
    rouge_l,
    token_accuracy,
)
from kdleak.stats.gap import mean_gap, proportion_gap
from tests.support.overfitted import overfit, uniform
from tests.support.tiny_models import VOCABULARY, random_records, tiny_model

EOS = 0


def record(*text: int, prompt: tuple[int, ...] = (5,)) -> EncodedRecord:
    return EncodedRecord("r", prompt, (*text, EOS), len(text))


def said(*rows: list[int], k: int = 4) -> np.ndarray:
    return np.array([row + [ENDED] * (k - len(row)) for row in rows])


def test_token_accuracy_by_hand():
    records = [record(1, 2, 3, 4, 5), record(1, 2, 3, 4), record(1, 2), record(1, 2), record(7)]
    found = said([1, 2, 3, 4], [1, 9, 3, 9], [1, 2], [1, 2, 3, 4], [])
    # A short reference is judged by its own tokens, whatever follows it; a text that ends early misses the rest.
    assert token_accuracy(found, records).tolist() == [1, 0.5, 1, 1, 0]
    # As published, the padding after a short reference is a miss.
    assert token_accuracy(found, records, as_published=True).tolist() == [1, 0.5, 0.5, 0.5, 0]


def test_the_closing_eos_is_never_a_hit():
    records = [EncodedRecord("r", (5,), (1, EOS), 1)]
    assert token_accuracy(np.array([[1, ENDED]]), records, as_published=True).tolist() == [0.5]


def test_prefixes_by_hand():
    right = np.array([True, True, False, True, True, True, False])
    offsets = np.array([0, 4, 6, 7])
    prefix = longest_correct_prefix(right, offsets)
    assert prefix.tolist() == [2, 2, 0]
    lengths = np.diff(offsets)
    assert exact_match(prefix, lengths, 2)[:2].tolist() == [1, 1] and math.isnan(exact_match(prefix, lengths, 2)[2])
    assert reproduced(prefix, lengths, k=2, shortest=2)[:2].tolist() == [1, 1]
    assert reproduced(prefix, lengths, k=3, shortest=2)[:2].tolist() == [0, 1]
    assert np.isnan(reproduced(prefix, lengths, k=3, shortest=8)).all()


ragged = st.lists(st.lists(st.booleans(), min_size=1, max_size=6), min_size=1, max_size=6)


@given(ragged)
@settings(deadline=None)
def test_prefixes_are_those_of_a_plain_loop(rows):
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    found = longest_correct_prefix(np.array([right for row in rows for right in row]), offsets)
    assert found.tolist() == [(*row, False).index(False) for row in rows]


def levenshtein(a: list[int], b: list[int]) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(levenshtein(a[1:], b) + 1, levenshtein(a, b[1:]) + 1, levenshtein(a[1:], b[1:]) + (a[0] != b[0]))


words = st.lists(st.integers(1, 3), max_size=4)


@given(st.lists(st.tuples(words, words.filter(bool)), min_size=1, max_size=4))
@settings(deadline=None)
def test_edit_similarity_is_that_of_a_plain_recursion(pairs):
    found = edit_similarity(said(*(own for own, _ in pairs)), [record(*text) for _, text in pairs])
    expected = [1 - levenshtein(own, text) / max(len(own), len(text)) for own, text in pairs]
    assert found.tolist() == pytest.approx(expected)


def test_rouge_l_by_hand():
    # Longest common subsequence "the cat sat" of 3 words, 4 in the candidate, 6 in the reference: P 3/4, R 3/6.
    found = rouge_l(["the cat sat down", "", "same words"], ["the cat sat on the mat", "a", "same words"])
    assert found.tolist() == pytest.approx([0.6, 0, 1])
    assert rouge_l(["cats"], ["cat"]).tolist() == [1]  # stems, as in the utility


@pytest.fixture(scope="module")
def knowing():
    records = [r for r in random_records(14) if r.n_scored >= 8][:6]
    return overfit(tiny_model(), records), records


def test_a_model_overfitted_to_its_records_gives_all_of_them_back(knowing):
    model, records = knowing
    found = greedy_continuations(model, records, EOS)
    assert token_accuracy(found, records).tolist() == [1] * 6
    assert token_accuracy(found, records, as_published=True).tolist() == [min(32, r.n_scored) / 32 for r in records]
    assert edit_similarity(found, records)[[r.response[-1] == EOS or r.n_scored >= 32 for r in records]].min() == 1
    statistics = token_statistics(model, records)
    prefix = longest_correct_prefix(~statistics.missed, statistics.offsets)
    assert prefix.tolist() == [r.n_scored for r in records]
    for k in (8, 16, 32, 50):
        values = exact_match(prefix, statistics.lengths, k)
        assert (values[statistics.lengths >= k] == 1).all() and np.isnan(values[statistics.lengths < k]).all()
    assert reproduced(prefix, statistics.lengths, 32).tolist() == [1] * 6


def test_a_uniform_model_gives_back_what_chance_gives():
    # All words tie, and the lowest, EOS, wins: nothing is said. With EOS out of the way word 1 is said throughout,
    # and hits one response token in 96, the words that responses are drawn from.
    from kdleak.inference.decoding import Decoding

    records = random_records(300)
    model = uniform(tiny_model())
    assert token_accuracy(greedy_continuations(model, records, EOS), records).max() == 0
    found = greedy_continuations(model, records, EOS, decoding=Decoding(suppress_eos=True))
    lengths = np.array([min(32, r.n_scored) for r in records])
    accuracy = token_accuracy(found, records)
    hits, chance = accuracy @ lengths, 1 / (VOCABULARY - 1)
    assert stats.binomtest(round(hits), int(lengths.sum()), chance).pvalue > 1e-3
    assert correct_prefix(found, records).sum() <= hits


def test_both_ways_to_the_prefix_agree():
    records, model = random_records(40), tiny_model()
    statistics = token_statistics(model, records)
    prefix = longest_correct_prefix(~statistics.missed, statistics.offsets)
    assert np.array_equal(np.minimum(prefix, 32), correct_prefix(greedy_continuations(model, records, EOS), records))


def test_a_gap_of_means_is_welchs():
    generator = np.random.default_rng(0)
    a, b = generator.normal(1, 1, 40), generator.normal(0.5, 2, 70)
    gap = mean_gap(a, np.append(b, np.nan))
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert (gap.members, gap.nonmembers, gap.n_members, gap.n_nonmembers) == (a.mean(), b.mean(), 40, 70)
    assert gap.gap == pytest.approx(a.mean() - b.mean())
    assert (gap.low, gap.high) == pytest.approx((expected.low, expected.high))
    swapped = mean_gap(b, a)
    assert (swapped.gap, swapped.low, swapped.high) == pytest.approx((-gap.gap, -gap.high, -gap.low))


def test_records_of_a_group_count_as_one_draw():
    generator = np.random.default_rng(0)
    a, b = generator.normal(1, 1, 40), generator.normal(0.5, 2, 70)
    twice = mean_gap(np.repeat(a, 2), np.repeat(b, 2), np.repeat(np.arange(40), 2), np.repeat(np.arange(70), 2))
    once = mean_gap(a, b)
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))
    assert mean_gap(np.repeat(a, 2), np.repeat(b, 2)).low > once.low


def test_a_gap_of_shares_is_newcombes():
    # Newcombe (1998), table II, method 10: 56/70 against 48/80, and 0/10 against 0/20 (columns a and h).
    gap = proportion_gap(56, 70, 48, 80)
    assert (gap.low, gap.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert mean_gap(np.repeat([1.0, 0.0], [56, 14]), np.repeat([1.0, 0.0], [48, 32])) == gap
    nothing = proportion_gap(0, 10, 0, 20)
    assert (nothing.low, nothing.high) == pytest.approx((-0.1611, 0.2775), abs=5e-5)


def test_a_gap_without_records_or_groups_is_undefined_not_zero():
    empty = mean_gap(np.array([]), np.array([0.5]))
    assert math.isnan(empty.gap) and math.isnan(empty.low) and empty.nonmembers == 0.5
    lone = mean_gap(np.array([0.4, 0.5]), np.array([0.5, 0.6]), np.array([1, 1]), np.array([1, 2]))
    assert lone.gap == pytest.approx(-0.1) and math.isnan(lone.low)
    constant = mean_gap(np.array([0.5, 0.5]), np.array([0.25, 0.25]))
    assert (constant.gap, constant.low, constant.high) == (0.25, 0.25, 0.25)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        a, b = generator.beta(2, 5, 30), generator.beta(2, 3, 50)
        gap = mean_gap(a, b)
        covered += gap.low <= 2 / 7 - 2 / 5 <= gap.high
    assert stats.binomtest(covered, 400, 0.95).pvalue > 1e-3
