from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdleak.core.errors import KdleakError
from kdleak.shadow.halves import halves


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=2, max_size=120), st.integers(1, 6), st.integers(0, 5))
def test_halves_are_balanced_and_complementary(groups, pairs, seed):
    inside = halves(groups, 2 * pairs, seed)
    assert (inside.sum(0) == pairs).all()
    assert (inside[0::2] == ~inside[1::2]).all()
    largest = max(groups.count(group) for group in groups)
    assert (np.abs(2 * inside.sum(1) - len(groups)) <= largest).all()
    for group in set(groups):
        of_group = inside[:, np.array(groups) == group]
        assert (of_group == of_group[:, :1]).all()


def test_single_records_are_halved_exactly():
    assert set(halves(range(1000), 16, 0).sum(1)) == {500}


def test_more_models_keep_the_earlier_ones():
    groups = np.arange(50) // 2
    assert (halves(groups, 12, 7)[:4] == halves(groups, 4, 7)).all()
    assert (halves(groups, 4, 7) != halves(groups, 4, 8)).any()


def test_halves_of_different_pairs_are_independent():
    inside = halves(range(400), 200, 0)[0::2]
    overlap = (inside @ inside.T.astype(int))[np.triu_indices(100, 1)] / 400
    assert overlap.mean() == pytest.approx(0.25, abs=0.003)


def test_an_odd_number_has_no_pairs():
    with pytest.raises(KdleakError, match=r"shadow\.models: 3 is odd"):
        halves(range(4), 3, 0)
