"""The permutation control: shuffled labels, under which no attack may find anything and intervals must keep what they
say. Labels are held a part at a time, so that memory does not grow with the records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak import stats
from kdleak.auditing.controls import COULD_NOT_RUN, FAILED, PASSED
from kdleak.auditing.membership import KEYS, LEVEL, attackers, groups_of
from kdleak.data.sides import MEMBER

if TYPE_CHECKING:
    import pandas as pd

#: The permutation control fails where intervals exclude one half more than twice as often as they should.
TOO_OFTEN = 2 * (1.0 - LEVEL)
#: Relabellings that an attack's intervals are made for.
_CHECKED = 400
#: Labels (relabellings times records) that are held at once.
_CELLS = 2**23
#: The same of those whose intervals are made, for which a dozen numbers stand beside each label.
_INTERVAL_CELLS = 2**20


def permutation_control(
    scores: pd.DataFrame, *, permutations: int = 1000, seed: int = 0, groups: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """AUCs under `permutations` random relabellings of the same records. groups: record id -> what makes one draw.

    attacks.<name>: mean and central 95 % range of the null, and `excluded`, the share of (up to 400) relabellings whose
    own 95 % interval excludes one half: .05 if intervals keep what they say. The control fails where that is above
    .1 for any attack, as it is where a few groups decide everything, and could not run where nothing can be relabelled.
    best: the highest AUC of an attacker's attacks beside the 95th percentile of that maximum under the null, and its
    p-value: the correction for having looked at several attacks. An attack without any score, and records that are
    undefined for any other, are left out.
    """
    names = attackers([c for c in scores.columns if c not in KEYS and np.isfinite(scores[c].to_numpy(float)).any()])
    table = scores.sort_values("record_id")
    table = table[np.isfinite(table[names].to_numpy(np.float64)).all(1)]
    is_member = (table["role"] == MEMBER).to_numpy()
    m, n = int(is_member.sum()), int((~is_member).sum())
    nothing = {
        "state": COULD_NOT_RUN, "n_permutations": 0, "attacks": {}, "best": None,
        "verdict": "The labels could not be shuffled: a side has no record that all attacks score.",
    }  # fmt: skip
    if not names or not m or not n:
        return nothing
    columns = {name: table[name].to_numpy(np.float64) for name in names}
    ranks = np.column_stack([stats.mid_ranks(column) for column in columns.values()])
    null, excluded = _relabelled(columns, ranks, is_member, permutations, seed, groups_of(table, groups))
    if not len(null):
        return nothing
    observed = (is_member @ ranks - m * (m + 1) / 2.0) / (m * n)
    low, high = np.quantile(null, [0.025, 0.975], axis=0)
    best = null.max(1)
    return {
        **_level(excluded),
        "n_permutations": len(null),
        "attacks": {
            name: {"mean": null[:, i].mean(), "range95": [low[i], high[i]], "excluded": excluded[name]}
            for i, name in enumerate(names)
        },
        "best": {
            "auc": float(observed.max()),
            "null_q95": float(np.quantile(best, 0.95)),
            "p_value": float((1 + (best >= observed.max()).sum()) / (1 + len(null))),
        },
    }


def _relabelled(
    columns: Mapping[str, np.ndarray],
    ranks: np.ndarray,
    is_member: np.ndarray,
    permutations: int,
    seed: int,
    owners: np.ndarray | None,
) -> tuple[np.ndarray, dict[str, float]]:
    """(p, k) AUCs of k attacks under relabellings that leave both sides a record, and of each attack the share of the
    first `_CHECKED` whose interval excludes one half. So many at once as memory allows; ranks: (n, k)."""
    n, generator = len(is_member), np.random.default_rng(seed)
    null: list[np.ndarray] = []
    shares: list[list[float]] = []
    checked: list[int] = []
    most = max(1, _CELLS // n)
    for rows in (min(most, permutations - start) for start in range(0, permutations, most)):
        labels = stats.relabellings(is_member, rows, generator, owners)
        drawn = labels.sum(1, keepdims=True)  # whole groups move: the number of members need not stay
        kept = ((drawn > 0) & (drawn < n))[:, 0]
        labels, drawn = labels[kept], drawn[kept]
        null.append((labels @ ranks - drawn * (drawn + 1) / 2.0) / (drawn * (n - drawn)))
        some = min(len(labels), _CHECKED - sum(checked))
        few = max(1, _INTERVAL_CELLS // n)
        for part in (labels[start : min(start + few, some)] for start in range(0, some, few)):
            checked.append(len(part))
            shares.append([stats.excluded_share(c, part, owners, LEVEL) for c in columns.values()])
    means = np.average(shares, axis=0, weights=checked) if checked else np.full(len(columns), np.nan)
    nothing = np.zeros((0, len(columns)))
    return np.concatenate([nothing, *null]), dict(zip(columns, means.tolist(), strict=True))


def _level(excluded: Mapping[str, float]) -> dict[str, str]:
    """State and words of the permutation control; excluded: attack -> share of relabellings that its interval calls
    an effect."""
    known = {name: share for name, share in excluded.items() if np.isfinite(share)}
    if not known:
        return {
            "state": COULD_NOT_RUN,
            "verdict": "The intervals could not be checked: a side is one group of records.",
        }
    worst = max(known, key=lambda name: known[name])
    found = f"exclude one half for at most {100 * known[worst]:.0f} % of shuffled labels ('{worst}')"
    if known[worst] > TOO_OFTEN:
        why = "the intervals are too narrow for these records, as where few groups hold most of them"
        return {"state": FAILED, "verdict": f"The 95 % intervals {found}, where 5 % would do: {why}."}
    return {"state": PASSED, "verdict": f"The 95 % intervals {found}; 5 % is what they say."}
