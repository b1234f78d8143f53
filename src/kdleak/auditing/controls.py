"""Negative controls: attacks that must be at chance, and how much the split itself contributes to a success.

If an attack that never sees the model beats chance, the split gives membership away by itself, and no figure of the
audit can be read as a leak of the model (Das, Zhang and Tramer 2024, arXiv 2406.16201).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak import stats
from kdleak.auditing.membership import KEYS, LEVEL
from kdleak.data.sides import MEMBER

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.inference.cache import ArrayCache

FOLDS = 5


def negative_control(scores: np.ndarray, is_member: np.ndarray, passed_text: str, failed_text: str) -> dict[str, Any]:
    """AUC and interval of an attack that has no information; passes where the 95 % interval is not above 0.5."""
    defined = np.isfinite(scores)
    area = stats.auc(scores[defined & is_member], scores[defined & ~is_member], LEVEL)
    passed = bool(not area.low > 0.5)
    return {
        "auc": area.value,
        "auc_ci95": [area.low, area.high],
        "p_value": area.p_value,
        "passed": passed,
        "verdict": passed_text if passed else failed_text,
    }


def blind_scores(texts: list[str], is_member: np.ndarray, groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """(n,) scores of a classifier that sees the text alone: bag of words, logistic regression, cross-validated.

    A record is scored by a model that saw no record of its group. Scores are ranks within their fold (0 to 1), since
    the folds' models are not on one scale. All NaN with too few groups to make two folds.
    """
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold

    scores = np.full(len(texts), np.nan)
    folds = min(FOLDS, *(len(np.unique(groups[side])) for side in (is_member, ~is_member)))
    if folds < 2:
        return scores
    order = np.argsort(groups, kind="stable")  # so that the order of the table decides nothing
    counts = HashingVectorizer(token_pattern=r"\w+", alternate_sign=False).transform(texts[i] for i in order)
    counts = counts[:, counts.getnnz(axis=0) > 0]
    labels, groups = is_member[order].astype(int), groups[order]
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, test in splitter.split(counts, labels, groups):
        model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(counts[train], labels[train])
        scores[order[test]] = stats.mid_ranks(model.decision_function(counts[test])) / len(test)
    return scores


def blind_control(records: pd.DataFrame, *, seed: int = 0, cache: ArrayCache | None = None) -> dict[str, Any]:
    """The blind attack on `records` (record_id, role, group_id and the text): AUC, interval, verdict in words.

    cache: keeps the attack's scores, which are the same for every model.
    """
    records = records.sort_values("record_id", ignore_index=True)
    is_member = (records["role"] == MEMBER).to_numpy()
    texts = [" ".join(t) for t in zip(records["instruction"], records["context"], records["response"], strict=True)]
    groups = records["group_id"].to_numpy().astype(str)

    def compute() -> dict[str, np.ndarray]:
        return {"scores": blind_scores(texts, is_member, groups, seed)}

    content = json.dumps([texts, is_member.tolist(), groups.tolist(), seed, FOLDS])
    key = hashlib.sha256(f"blind attack {content}".encode()).hexdigest()
    scores = (compute() if cache is None else cache.get_or_compute(key, compute))["scores"]
    return negative_control(
        scores,
        is_member,
        "The text alone does not tell members from non-members.",
        "The split itself gives membership away: an attack that never saw the model beats chance.",
    )


def placebo_control(scores: np.ndarray, is_member: np.ndarray) -> dict[str, Any]:
    """An attack that is given the teacher, with models in place of student and no-KD student that never met it."""
    return negative_control(
        scores,
        is_member,
        "Without a student of the teacher the attack finds nothing.",
        "The attack hears the teacher itself: its figure is no measure of what the student gives away.",
    )


def permutation_control(scores: pd.DataFrame, *, permutations: int = 1000, seed: int = 0) -> dict[str, Any]:
    """AUCs under `permutations` random relabellings of the same records.

    attacks.<name>: mean and central 95 % range of the null. best: the highest AUC of all attacks beside the 95th
    percentile of that maximum under the null, and its p-value: the correction for having looked at several attacks.
    Records that are undefined for any attack are left out.
    """
    names = [c for c in scores.columns if c not in KEYS]
    table = scores.sort_values("record_id")
    table = table[np.isfinite(table[names].to_numpy(np.float64)).all(1)]
    is_member = (table["role"] == MEMBER).to_numpy()
    m, n = int(is_member.sum()), int((~is_member).sum())
    if not names or not m or not n:
        return {"n_permutations": 0, "attacks": {}, "best": None}
    ranks = np.column_stack([stats.mid_ranks(table[name].to_numpy(np.float64)) for name in names])
    generator = np.random.default_rng(seed)
    labels = generator.permuted(np.tile(is_member, (permutations, 1)), axis=1)
    null = (labels @ ranks - m * (m + 1) / 2.0) / (m * n)
    observed = (is_member @ ranks - m * (m + 1) / 2.0) / (m * n)
    low, high = np.quantile(null, [0.025, 0.975], axis=0)
    best = null.max(1)
    return {
        "n_permutations": permutations,
        "attacks": {name: {"mean": null[:, i].mean(), "range95": [low[i], high[i]]} for i, name in enumerate(names)},
        "best": {
            "auc": float(observed.max()),
            "null_q95": float(np.quantile(best, 0.95)),
            "p_value": float((1 + (best >= observed.max()).sum()) / (1 + permutations)),
        },
    }


def overlap_control(scores: pd.DataFrame, overlap: Mapping[str, float]) -> dict[str, Any]:
    """Each attack's AUC against the non-members that share no 13-gram with a member, and against those that do.

    overlap: record id of each non-member -> share of its 13-grams that stand in a member (NaN: it has none). Where
    attacks do worse against overlapping non-members, these were members in part (Duan et al. 2024, arXiv 2402.07841).
    """
    names = [c for c in scores.columns if c not in KEYS]
    is_member = (scores["role"] == MEMBER).to_numpy()
    shares = np.array([np.nan_to_num(overlap.get(i, np.nan)) for i in scores["record_id"]])
    strata = {"none": ~is_member & (shares == 0.0), "some": ~is_member & (shares > 0.0)}
    report: dict[str, Any] = {}
    for stratum, rows in strata.items():
        report[stratum] = {"n_nonmembers": int(rows.sum()), "attacks": {}}
        for name in names:
            column = scores[name].to_numpy(np.float64)
            members, others = (column[side & np.isfinite(column)] for side in (is_member, rows))
            area = stats.auc(members, others, LEVEL)
            report[stratum]["attacks"][name] = {"auc": area.value, "auc_ci95": [area.low, area.high]}
    return report
