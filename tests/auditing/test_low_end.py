"""Claims on `benchmarks/low_end.py`: gains at the low end by hand, over the better of two, resampled by group."""

import numpy as np
import pytest
from benchmarks import low_end


def test_a_gain_is_over_the_better_of_the_attacks_that_are_to_be_beaten():
    """By hand: 4 members, 100 non-members; at 1 % one non-member may lie above the threshold."""
    outside = np.arange(100.0)
    member = np.arange(104) < 4
    columns = [np.concatenate([inside, outside]) for inside in
               ([99.0, 98.5, 98.5, 0], [98.5, 98.5, 98.5, 98.5], [98.5, 0, 0, 0], [98.5, 98.5, 0, 0])]  # fmt: skip
    found = low_end.tprs(np.column_stack(columns), np.arange(104), member)
    assert found.tolist() == [0.75, 1.0, 0.25, 0.5]
    assert low_end.gains(found).tolist() == [0.25, 0.5]


def test_students_of_the_same_records_are_resampled_together_and_groups_stay_whole(monkeypatch):
    monkeypatch.setattr(low_end, "RESAMPLES", 200)
    generator, member, owner = np.random.default_rng(0), np.arange(400) < 200, np.arange(400) // 2
    scores = generator.normal(size=(400, 4)) + 3.0 * member[:, None] * [1, 1, 0, 0]
    result = low_end.summary({"a": scores, "b": scores}, member, owner)
    assert result["by_student"]["a"] == result["by_student"]["b"]
    assert result["learned"]["above"] == 2 == result["students"] == result["learned"]["intervals_above"]
    gain, low, high = result["learned"]["mean_gain"]
    assert 0 < low < gain < high and result["learned"]["mean_gain"] == pytest.approx(
        result["by_student"]["a"]["learned_gain"]
    )
