"""Planted canaries in `memorization.json`: exposure with its interval, beside the no-KD student's on the same secrets.

A table has a row a secret: record_id, repetitions (0: never planted, a reference), log_perplexity in bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import stdtrit

from kdleak.core.errors import KdleakError
from kdleak.memorization.exposure import CHANCE, exposure, extrapolated_exposure
from kdleak.stats.gap import mean_gap

if TYPE_CHECKING:
    import pandas as pd


def canary_report(audited: pd.DataFrame, no_kd: pd.DataFrame | None) -> dict[str, Any]:
    """Exposure by number of repetitions, of this model and of the no-KD student; and its `excess`, the mean difference
    on the same canaries: some secrets are likelier than others to a model that has never seen them."""
    report = _exposures(audited)
    if no_kd is not None:
        report["no_kd"] = _exposures(no_kd)
        first, second = (_by_canary(table) for table in (audited, no_kd))
        if not first.index.equals(second.index):
            raise KdleakError("the no-KD student's canaries are not this model's; run both memorization stages again")
        differences = (first - second).groupby(level="repetitions")
        for level, values in differences:
            mean, ci95 = _mean(values.to_numpy())
            report["repetitions"][str(level)]["excess"] = {"exposure": mean, "ci95": ci95}
    return report


def _by_canary(table: pd.DataFrame) -> pd.Series:
    """Exposure of each planted canary, bits, indexed by repetitions and record id."""
    table = table.sort_values(["repetitions", "record_id"], ignore_index=True)
    planted = (table["repetitions"] > 0).to_numpy()
    bits = table["log_perplexity"].to_numpy()
    index = table.loc[planted].set_index(["repetitions", "record_id"]).index
    return table.loc[planted, "log_perplexity"].set_axis(index) * 0 + exposure(bits[planted], bits[~planted])


def _mean(values: np.ndarray) -> tuple[float, list[float]]:
    """The mean over canaries and its 95 % interval (Student's t); NaN with fewer than two."""
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return mean, [float("nan")] * 2
    reach = float(stdtrit(n - 1, 0.975)) * float(values.std(ddof=1)) / n**0.5
    return mean, [mean - reach, mean + reach]


def _exposures(table: pd.DataFrame) -> dict[str, Any]:
    table = table.sort_values(["repetitions", "record_id"], ignore_index=True)
    planted = (table["repetitions"] > 0).to_numpy()
    bits = table["log_perplexity"].to_numpy()
    values = exposure(bits[planted], bits[~planted])
    far = extrapolated_exposure(bits[planted], bits[~planted])
    repetitions = table.loc[planted, "repetitions"].to_numpy()
    levels = sorted(set(repetitions.tolist()))
    most, least = (values[repetitions == level] for level in (levels[-1], levels[0]))
    against = mean_gap(most, least)
    return {
        "references": int((~planted).sum()),
        "maximum": float(np.log2((~planted).sum() + 1)),
        "chance": CHANCE,
        "repetitions": {
            str(level): {
                "n": int((repetitions == level).sum()),
                "exposure": float(values[repetitions == level].mean()),
                "exposure_ci95": _mean(values[repetitions == level])[1],
                "exposures": np.sort(values[repetitions == level]),
                "extrapolated": float(far[repetitions == level].mean()),
            }
            for level in levels
        },
        "most_against_least": {"difference": against.gap, "ci95": [against.low, against.high]},
    }
