"""From a table of scores to `membership.json`: what each attack shows, overall and by task, with its uncertainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak import stats
from kdleak.attacks import ATTACKS
from kdleak.attacks.registry import ATTACKER
from kdleak.core.errors import KdleakError
from kdleak.data.sides import MEMBER, NONMEMBER

if TYPE_CHECKING:
    import pandas as pd

#: Columns of a scores table that are not attacks.
KEYS = ("record_id", "role", "task")
LEVEL = 0.95


def groups_of(table: pd.DataFrame, groups: Mapping[str, str] | None) -> np.ndarray | None:
    """(n,) int64 the group of each row of a table with record ids, numbered in order of their ids: what counts as one
    draw. None: every record is its own."""
    if groups is None:
        return None
    of_rows = [groups[i] for i in table["record_id"]]
    number = {group: i for i, group in enumerate(sorted(set(of_rows)))}
    return np.array([number[group] for group in of_rows], np.int64)


def membership_report(
    scores: pd.DataFrame, *, controls: Mapping[str, Any] | None = None, groups: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The content of `membership.json` for `scores` (record_id, role, task, one float column an attack).

    Scores are oriented (higher = member); NaN marks a record whose score is undefined, which is left out of that
    attack's figures and counted in `undefined`. Rows of other roles are ignored; row order has no effect.
    `controls` is passed through. groups: record id -> group; records of a group count as one draw.
    Raises KdleakError where a side has no record or no column is an attack.
    """
    frame = scores[scores["role"].isin([MEMBER, NONMEMBER])].sort_values("record_id", ignore_index=True)
    names = [column for column in frame.columns if column not in KEYS]
    is_member = (frame["role"] == MEMBER).to_numpy()
    if not names:
        raise KdleakError("the scores table has no attack column beside record_id, role and task")
    if not is_member.any() or is_member.all():
        raise KdleakError(f"an audit needs records of both roles '{MEMBER}' and '{NONMEMBER}'")
    columns = {name: frame[name].to_numpy(np.float64) for name in names}
    owners = groups_of(frame, groups)
    attacks = _family(columns, is_member, owners)
    tasks = {}
    for task in sorted(frame["task"].unique()):
        rows = (frame["task"] == task).to_numpy()
        of_task = {name: column[rows] for name, column in columns.items()}
        tasks[task] = _family(of_task, is_member[rows], None if owners is None else owners[rows])
    return {
        "n_members": int(is_member.sum()),
        "n_nonmembers": int((~is_member).sum()),
        "undefined": {name: _undefined(column, is_member) for name, column in columns.items()},
        "attacks": attacks,
        "best_attack": max(attackers(names), key=lambda name: (np.nan_to_num(attacks[name]["auc"], nan=-1.0), name)),
        "tasks": tasks,
        "controls": dict(controls or {}),
        "notes": _notes(int((~is_member).sum()), None if owners is None else owners[~is_member]),
    }


def attackers(names: Sequence[str]) -> list[str]:
    """Those of the attacks `names` that need no teacher: an auditor's figure is never an attacker's best. All of them
    where there is no other."""
    return [name for name in names if name not in ATTACKS or ATTACKS[name].whose == ATTACKER] or list(names)


def attack_summary(members: np.ndarray, nonmembers: np.ndarray, groups: stats.Groups | None = None) -> dict[str, Any]:
    """One attack's figures for scores (m,) and (n,); NaN scores are left out. All null where a side is empty."""
    kept = np.isfinite(members), np.isfinite(nonmembers)
    members, nonmembers = members[kept[0]], nonmembers[kept[1]]
    groups = None if groups is None else (groups[0][kept[0]], groups[1][kept[1]])
    area = stats.auc(members, nonmembers, LEVEL, groups)
    summary: dict[str, Any] = {
        "n_members": len(members),
        "n_nonmembers": len(nonmembers),
        "auc": area.value,
        "auc_ci95": [area.low, area.high],
        "p_value": area.p_value,
    }
    accuracy = stats.balanced_accuracy(members, nonmembers, groups)
    summary |= {"balanced_accuracy": accuracy, "advantage": 2.0 * accuracy - 1.0}
    if not len(members) or not len(nonmembers):
        empty = {f"{fpr:g}": None for fpr in stats.FPRS}
        return summary | {"tpr_at_fpr": empty, "tpr_ci95": empty, "fpr_ci95": empty, "epsilon_lower": None}
    points = {f"{fpr:g}": stats.operating_point(members, nonmembers, fpr, LEVEL, groups) for fpr in stats.FPRS}
    return summary | {
        "tpr_at_fpr": {key: point.tpr for key, point in points.items()},
        "tpr_ci95": {key: list(point.tpr_ci) for key, point in points.items()},
        "fpr_ci95": {key: list(point.fpr_ci) for key, point in points.items()},
        "epsilon_lower": stats.epsilon_lower_bound(members, nonmembers, level=LEVEL, groups=groups),
    }


def _family(
    columns: Mapping[str, np.ndarray], is_member: np.ndarray, groups: np.ndarray | None
) -> dict[str, dict[str, Any]]:
    """Summaries of several attacks on the same records, with p-values Holm-corrected among them."""
    owners = None if groups is None else (groups[is_member], groups[~is_member])
    summaries = {name: attack_summary(c[is_member], c[~is_member], owners) for name, c in columns.items()}
    adjusted = stats.holm([s["p_value"] for s in summaries.values()])
    for summary, p in zip(summaries.values(), adjusted, strict=True):
        summary["p_holm"] = float(p)
    return summaries


def _undefined(column: np.ndarray, is_member: np.ndarray) -> dict[str, int]:
    undefined = ~np.isfinite(column)
    return {"members": int((undefined & is_member).sum()), "nonmembers": int((undefined & ~is_member).sum())}


def _notes(n: int, owners: np.ndarray | None) -> list[str]:
    """Stated rates that n non-members are too few for. owners: (n,) their groups."""
    sides = None if owners is None else (owners, owners)
    _, bound = stats.clopper_pearson(0, stats.effective_sizes((n, n), sides)[1], LEVEL)
    finer = [f"{100 * fpr:g} %" for fpr in stats.FPRS if 0.0 < fpr * n < 1.0 - 1e-9]
    if not finer:
        return []
    return [
        f"An FPR of {' and '.join(finer)} is finer than 1/{n}, one non-member: the TPR given for it is the TPR without "
        f"any false positive among {n} non-members, where the true FPR may be as high as {100 * float(bound):.2g} %."
    ]
