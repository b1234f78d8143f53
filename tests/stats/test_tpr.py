"""The TPR at a fixed FPR as a mean over records: its value, its error, and where it is too fine for its records."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kdleak.core.variants import Variant
from kdleak.report.study.findings import View, views_of
from kdleak.stats import tpr_leak


def scores(shift: float, n: int, seed: int, common: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    both = 0.7 * common + 0.7 * np.random.default_rng(seed).normal(size=2 * n)
    return both[:n] + shift, both[n:]


def test_a_tpr_as_a_mean_over_records_is_the_tpr_and_has_the_error_that_repetition_shows():
    n, values, errors = 1000, [], []
    for seed in range(200):
        common = np.random.default_rng(10_000 + seed).normal(size=2 * n)
        first, second = (tpr_leak(*scores(shift, n, 3 * seed + k, common), 0.01) for k, shift in enumerate((1.5, 1.0)))
        values.append((first - second).value)
        errors.append((first - second).error)
    members, nonmembers = scores(1.5, n, 0, np.zeros(2 * n))
    leak = tpr_leak(members, nonmembers, 0.01)
    assert leak.value == np.mean(members > np.sort(nonmembers)[-11]) == pytest.approx(leak.nonmembers.mean())
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)


def test_a_rate_that_lets_fewer_than_five_non_members_through_judges_nothing():
    few, enough = (scores(1.0, n, 0, np.zeros(2 * n)) for n in (499, 500))
    assert tpr_leak(*few, 0.01) is None and tpr_leak(*enough, 0.01) is not None
    tables = {
        Variant(name): pd.DataFrame({"record_id": range(998), "role": np.repeat(["private", "heldout"], 499),
                            "loss": np.concatenate(few)})
        for name in ("kd", "rkl")
    }  # fmt: skip
    assert list(views_of(tables)) == [View("loss")]
