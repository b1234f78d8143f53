"""Comparisons of two models' scores on the same records: differences of AUC, inheritance, overlap of the exposed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak import stats
from kdleak.auditing.membership import KEYS, LEVEL, groups_of, membership_report
from kdleak.core.errors import KdleakError, nearest
from kdleak.data.sides import MEMBER

if TYPE_CHECKING:
    import pandas as pd

#: Shares of the members that count as most exposed.
TOP_SHARES = (0.01, 0.05, 0.1)
#: Bootstrap draws of the overlaps' intervals, and their seed: fixed, so that the same scores give the same figures.
_DRAWS, _SEED = 400, 0
#: What is reported of another model's score by one attack.
AREA = ("auc", "auc_ci95", "p_value", "p_holm")


def paired_differences(
    first: pd.DataFrame, second: pd.DataFrame, groups: Mapping[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    """AUC(first) - AUC(second) for each attack that both scores tables have, by paired DeLong, Holm-corrected.

    Both tables must hold the same records (KdleakError otherwise); records whose score is undefined in either are
    left out of that attack. groups: record id -> group; records of a group count as one draw.
    """
    pairs = _pairs(first, second, groups)
    differences = {name: stats.auc_difference(a, b, LEVEL, owners) for name, (a, b, owners) in pairs.items()}
    adjusted = stats.holm([difference.p_value for difference in differences.values()])
    return {
        name: {"difference": d.value, "ci95": [d.low, d.high], "p_value": d.p_value, "p_holm": float(p)}
        for (name, d), p in zip(differences.items(), adjusted, strict=True)
    }


def areas_beside(
    scores: pd.DataFrame,
    other: pd.DataFrame,
    keys: Sequence[str] = AREA,
    groups: Mapping[str, str] | None = None,
) -> dict[str, dict[str, Any]]:
    """The figures `keys` of another model, for each attack that both scores tables have."""
    shared = [name for name in scores.columns if name in other.columns and name not in KEYS]
    attacks = membership_report(other[[*KEYS, *shared]], groups=groups)["attacks"] if shared else {}
    return {name: {key: attacks[name][key] for key in keys} for name in shared}


def against_baseline(
    scores: pd.DataFrame,
    baseline: pd.DataFrame,
    keys: Sequence[str] = AREA,
    groups: Mapping[str, str] | None = None,
) -> dict[str, dict[str, Any]]:
    """`areas_beside` of the no-KD student, and the audited student's `excess` over each AUC."""
    excess = paired_differences(scores, baseline, groups)
    beside = areas_beside(scores, baseline, keys, groups)
    return {name: area | {"excess": excess[name]} for name, area in beside.items()}


def between_techniques(
    scores: Mapping[str, pd.DataFrame], attack: str, groups: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Every pair of techniques by one attack: AUC(first) - AUC(second), paired DeLong, Holm-corrected over the pairs.

    scores: technique -> its scores table. groups: record id -> group; records of a group are one draw. Raises
    KdleakError where a table lacks the attack or holds other records.
    """
    for name, table in scores.items():
        if attack not in table.columns:
            raise KdleakError(f"'{name}' has no scores of attack '{attack}'; {nearest(attack, table.columns)}")
    differences = []
    for first, second in combinations(scores, 2):
        one, other = (scores[name][[*KEYS, attack]] for name in (first, second))
        a, b, owners = _pairs(one, other, groups)[attack]
        differences.append((first, second, stats.auc_difference(a, b, LEVEL, owners)))
    adjusted = stats.holm([difference.p_value for _, _, difference in differences])
    return [
        {"first": a, "second": b, "difference": d.value, "ci95": [d.low, d.high], "p_value": d.p_value, "p_holm": p}
        for (a, b, d), p in zip(differences, adjusted.tolist(), strict=True)
    ]


def inherited(
    student: pd.DataFrame, teacher: pd.DataFrame, groups: Mapping[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    """For each shared attack, (AUC_student - 1/2) / (AUC_teacher - 1/2) with its interval (null where unbounded)."""
    pairs = _pairs(student, teacher, groups)
    ratios = {name: stats.inheritance(a, b, LEVEL, owners) for name, (a, b, owners) in pairs.items()}
    return {name: {"share": ratio.value, "ci95": [ratio.low, ratio.high]} for name, ratio in ratios.items()}


def exposed_overlap(
    student: pd.DataFrame,
    teacher: pd.DataFrame,
    no_kd: pd.DataFrame | None = None,
    groups: Mapping[str, str] | None = None,
) -> dict[str, dict[str, Any]]:
    """How far the members that the student exposes most are those that the teacher exposes most, by attack.

    `n`: the members that all models given score. `spearman`: rank correlation over them. `top`: for each share, k
    records, how many stand among the top k of both, as a share of k, against the share by chance, and the probability
    of as many by chance (hypergeometric); ties do not count by order. `no_kd`: the same of the no-KD student with the
    teacher: what easy records alone give; `excess`: the student's overlap less that one. Intervals are percentile
    bootstraps over groups (record id -> group), with the same draws for both.
    """
    tables = [table[table["role"] == MEMBER] for table in (student, teacher, *(() if no_kd is None else (no_kd,)))]
    against = _pairs(tables[2], tables[1], groups) if no_kd is not None else {}
    report: dict[str, dict[str, Any]] = {}
    for name, ((a, _), (b, _), owners) in _pairs(tables[0], tables[1], groups).items():
        models = {"student": (a, b)}
        owner = None if owners is None else owners[0]
        if name in against:
            ordered = [table.sort_values("record_id", ignore_index=True) for table in tables]
            columns = [table[name].to_numpy(np.float64) for table in ordered]
            kept = np.isfinite(columns).all(0)
            a, b, c = (column[kept] for column in columns)
            models = {"student": (a, b), "no_kd": (c, b)}
            of_all = groups_of(ordered[0], groups)
            owner = None if of_all is None else of_all[kept]
        report[name] = _overlaps(models, owner)
    return report


def _overlaps(models: Mapping[str, tuple[np.ndarray, np.ndarray]], owner: np.ndarray | None) -> dict[str, Any]:
    """`exposed_overlap` of one attack; models: scores (n,) of a model's and the teacher's, student first."""
    n = len(models["student"][0])
    if n < 3:
        return {"n": n, "spearman": None, "spearman_ci95": None, "top": {}}
    weights = stats.resamples(n, owner, _SEED, _DRAWS)
    figures, drawn = {}, {}
    for who, (a, b) in models.items():
        drawn[who] = {f"{share:g}": stats.resampled_overlap(a, b, share, weights) for share in TOP_SHARES}
        tops = {f"{share:g}": asdict(stats.overlap_at_top(a, b, share, owner)) for share in TOP_SHARES}
        figures[who] = {
            "spearman": stats.spearman(a, b),
            "spearman_ci95": list(stats.percentiles(stats.weighted_spearman(a, b, weights))),
            "top": {s: top | {"overlap_ci95": list(stats.percentiles(drawn[who][s]))} for s, top in tops.items()},
        }
    report = {"n": n, **figures["student"]}
    if "no_kd" in figures:
        report["no_kd"] = figures["no_kd"]
        report["excess"] = {
            s: {
                "difference": top["overlap"] - figures["no_kd"]["top"][s]["overlap"],
                "ci95": list(stats.percentiles(drawn["student"][s] - drawn["no_kd"][s])),
            }
            for s, top in figures["student"]["top"].items()
        }
    return report


def _pairs(
    first: pd.DataFrame, second: pd.DataFrame, groups: Mapping[str, str] | None = None
) -> dict[str, tuple[stats.Scores, stats.Scores, stats.Groups | None]]:
    """For each shared attack the two tables' (members, nonmembers), row by row the same records, and their groups."""
    tables = [t.sort_values("record_id", ignore_index=True) for t in (first, second)]
    for column in ("record_id", "role"):
        if list(tables[0][column]) != list(tables[1][column]):
            raise KdleakError("two models are compared on different records; attack both again on the same data")
    is_member, owner = (tables[0]["role"] == MEMBER).to_numpy(), groups_of(tables[0], groups)
    pairs = {}
    for name in (c for c in first.columns if c not in KEYS and c in second.columns):
        a, b = (t[name].to_numpy(np.float64) for t in tables)
        defined = np.isfinite(a) & np.isfinite(b)
        inside, outside = defined & is_member, defined & ~is_member
        owners = None if owner is None else (owner[inside], owner[outside])
        pairs[name] = ((a[inside], a[outside]), (b[inside], b[outside]), owners)
    return pairs
