"""A bound over many trainings: shadow models on complementary halves of the records, one trial a pair and side.

Of a pair, one model was trained on a record and the other was not, by a fair draw. What a fixed rule says of the record
under the first model is a trial of its true-positive rate, under the second of its false-positive rate; pairs are drawn
apart, so that Clopper and Pearson's intervals hold of both. Nothing rests on one training; a bound takes many.

A pair's halves are of one size: who lacks the record has another in its place, drawn by chance. The bound is therefore
of *replacing* a record (and with it the near-duplicates that are not parted from it). Where adding or removing one is
(ε, δ)-private, replacing is (2ε, (1 + e^ε) δ)-private: an accountant's ε of the former is no upper end of this bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kdleak.stats.epsilon import epsilon_bound
from kdleak.stats.operating_points import clopper_pearson


def multi_run(statistics: Mapping[str, np.ndarray], inside: np.ndarray, delta: float) -> dict[str, Any]:
    """statistics: name -> (models, n), higher where the record was learned; inside: (models, n), pairs side by side.

    Statistic, record and threshold are chosen on the first half of the pairs: the record whose models with and without
    it lie furthest apart for their spread, and the middle between them. The bound is of the other half. Records that a
    model says nothing of (NaN) are not chosen; of one pair, which cannot be parted, nothing is.
    """
    pairs = len(inside) // 2
    first = 2 * (pairs // 2)
    if not first:
        return {"epsilon_lower": 0.0, "epsilon_if_all_right": 0.0, "pairs": 0, "true_positives": 0,
                "false_positives": 0, "statistic": next(iter(statistics))}  # fmt: skip
    gaps = {
        name: np.nan_to_num(_separation(values[:first], inside[:first]), nan=-np.inf)
        for name, values in statistics.items()
    }
    name = max(gaps, key=lambda each: gaps[each].max())
    record = int(gaps[name].argmax())
    values, had = statistics[name][:, record], inside[:, record]
    threshold = (values[:first][had[:first]].mean() + values[:first][~had[:first]].mean()) / 2
    said, coins = values[first:] > threshold, had[first:]
    trials = len(coins) // 2
    hits, false = int(said[coins].sum()), int(said[~coins].sum())
    low, _ = clopper_pearson(hits, trials)
    _, high = clopper_pearson(false, trials)
    most = epsilon_bound(float(clopper_pearson(trials, trials)[0]), float(clopper_pearson(0, trials)[1]), delta)
    return {
        "epsilon_lower": epsilon_bound(float(low), float(high), delta),
        "epsilon_if_all_right": most,
        "pairs": trials,
        "true_positives": hits,
        "false_positives": false,
        "statistic": name,
    }


def _separation(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(n,) mean of the models with the record less that of those without, over the spread that is left within."""
    means = [np.where(side, values, 0).sum(0) / side.sum(0) for side in (inside, ~inside)]
    rest = np.where(inside, values - means[0], values - means[1])
    return (means[0] - means[1]) / (rest.std(0) + 1e-6)
