"""Negative controls: attacks that must be at chance, and how much the split itself contributes to a success.

If an attack that never sees the model beats chance, the split gives membership away by itself, and no figure of the
audit can be read as a leak of the model (Das, Zhang and Tramer 2024, arXiv 2406.16201).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri, stdtrit

from kdleak import stats
from kdleak.auditing.blind import FOLDS, SCORERS, blind_scores
from kdleak.auditing.membership import KEYS, LEVEL, groups_of
from kdleak.data.sides import MEMBER

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.inference.cache import ArrayCache

#: States of a control. One that could not run is no control, and nothing that rests on it is said.
PASSED, FAILED, COULD_NOT_RUN = "passed", "failed", "could not run"
_SPLIT = "The split itself gives membership away"
#: The probability with which a difference of the stated size would have been noticed.
NOTICED = 0.95
#: By how much the error of a cross-fitted classifier's AUC exceeds DeLong's, which takes its scores as given: training
#: sets overlap (Nadeau and Bengio 2003, the square root of 1 + K / (K - 1) for K folds). On fair splits the AUCs of the
#: nine classifiers stray by 1.26 to 1.47 of DeLong's errors (benchmarks/verdict_simulation.py), by this factor less
#: than one.
CROSS_FITTED = (1.0 + FOLDS / (FOLDS - 1)) ** 0.5
#: Records that the blind battery looks at: enough to notice an AUC of .51, and its memory is bounded.
LARGEST = 20_000
#: Models that saw neither list: what attacks call them -> what words do.
BLIND_MODELS = {"no_kd": "the baseline", "pretrained": "the pretrained base", "external": "the reference"}


@dataclass(frozen=True)
class Blind:
    """report: the control. scores: (n,) mean rank that the classifiers of the texts give each record, in the order of
    the records; NaN where they could not run, or did not look."""

    report: dict[str, Any]
    scores: np.ndarray


def negative_control(
    scores: np.ndarray,
    is_member: np.ndarray,
    passed_text: str,
    failed_text: str,
    groups: np.ndarray | None = None,
) -> dict[str, Any]:
    """State, AUC and interval of an attack that has no information; passes where the 95 % interval is not above 0.5,
    and could not run where there is none."""
    area = _area(scores, is_member, LEVEL, groups)
    state = COULD_NOT_RUN if not np.isfinite(area.low) else FAILED if area.low > 0.5 else PASSED
    words = {PASSED: passed_text, FAILED: failed_text, COULD_NOT_RUN: "The control could not run: no score is defined."}
    return {
        "state": state,
        "auc": area.value,
        "auc_ci95": [area.low, area.high],
        "p_value": area.p_value,
        "verdict": words[state],
    }


def is_model(scorer: str | None) -> bool:
    """Whether a blind scorer is a model that saw neither list, and no classifier of the texts."""
    return scorer in BLIND_MODELS


def who_is(scorer: str | None) -> str:
    """A blind scorer in words."""
    model = BLIND_MODELS.get(scorer or "")
    return f"{model}, which saw neither list," if model else "a blind attack that sees the texts alone"


def blind_control(
    records: pd.DataFrame,
    *,
    seed: int = 0,
    cache: ArrayCache | None = None,
    models: Mapping[str, np.ndarray] | None = None,
) -> Blind:
    """The blind battery on `records` (record_id, role, group_id and the text); of more than `LARGEST` on those that
    come first by record id: ids are hashes, so that the sample is random.

    models: scores (n,) of the records under models that saw neither list; these count on either side of one half.
    The control fails where the interval of any scorer, Bonferroni-corrected for all, excludes one half, and could not
    run where no classifier of the texts could. `noticeable_auc`: the AUC that would have made it fail with a
    probability of 95 %. cache: keeps the classifiers' scores, which are the same for every model.
    """
    order = np.argsort(records["record_id"].to_numpy().astype(str), kind="stable")[:LARGEST]
    table = records.iloc[order]
    is_member = (table["role"] == MEMBER).to_numpy()
    texts = ["\x1f".join(t) for t in zip(table["instruction"], table["context"], table["response"], strict=True)]
    groups = table["group_id"].to_numpy().astype(str)
    content = json.dumps([texts, is_member.tolist(), groups.tolist(), seed, FOLDS, list(SCORERS)])
    key = hashlib.sha256(f"blind battery {content}".encode()).hexdigest()

    def compute() -> dict[str, np.ndarray]:
        return blind_scores(texts, is_member, groups, seed)

    scores = dict(sorted((compute() if cache is None else cache.get_or_compute(key, compute)).items()))
    combined = np.full(len(records), np.nan)
    if scores:
        combined[order] = np.mean(list(scores.values()), axis=0)
    of_models = {name: column[order] for name, column in (models or {}).items()}
    return Blind(_battery(scores, of_models, is_member, groups), combined)


def _battery(
    of_texts: Mapping[str, np.ndarray], of_models: Mapping[str, np.ndarray], is_member: np.ndarray, groups: np.ndarray
) -> dict[str, Any]:
    count = len(of_texts) + len(of_models)
    level = 1.0 - (1.0 - LEVEL) / max(1, count)
    areas = {
        name: _widened(_area(scores, is_member, level, groups), _factor(name in of_texts, is_member, groups, level))
        for name, scores in {**of_texts, **of_models}.items()
    }
    failed = [name for name, area in areas.items() if area.low > 0.5 or (name in of_models and area.high < 0.5)]
    if any(name in of_texts for name in failed):
        state, words = FAILED, f"{_SPLIT}: an attack that never saw the model beats chance."
    elif failed:
        state, words = FAILED, f"{_SPLIT}: a model that saw neither list tells them apart."
    elif not any(np.isfinite(areas[name].low) for name in of_texts):
        state = COULD_NOT_RUN
        words = "The blind attack could not run: it needs records of two groups at least in each list."
    else:
        state, words = PASSED, "The text alone does not tell members from non-members."
    defined = [name for name, area in areas.items() if np.isfinite(area.value)]
    ordered = sorted(failed or defined, key=lambda name: (-_distance(areas[name].value, name in of_models), name))
    worst = areas[ordered[0]] if ordered else stats.AucEstimate(np.nan, np.nan, np.nan, np.nan)
    return {
        "state": state,
        "scorer": ordered[0] if ordered else None,
        "failed": failed,
        "auc": worst.value,
        "auc_ci95": [worst.low, worst.high],
        "p_value": min(1.0, count * worst.p_value),
        "noticeable_auc": _noticeable(is_member, groups, count) if of_texts else None,
        "scorers": {name: {"auc": a.value, "auc_ci95": [a.low, a.high]} for name, a in areas.items()},
        "verdict": words,
    }


def _distance(auc: float, either_side: bool) -> float:
    return abs(auc - 0.5) if either_side else auc - 0.5


def _noticeable(is_member: np.ndarray, groups: np.ndarray, tests: int) -> float:
    """The smallest AUC that a classifier, one of `tests` scorers, would have been caught with, 95 %; groups count as
    one draw."""
    m, n = (len(np.unique(groups[side])) for side in (is_member, ~is_member))
    level = 1.0 - (1.0 - LEVEL) / tests
    error = CROSS_FITTED * np.sqrt((m + n + 1) / (12 * m * n))
    critical = ndtri((1.0 + level) / 2) * _factor(False, is_member, groups, level)
    return float(min(1.0, 0.5 + (critical + ndtri(NOTICED)) * error))


def _factor(cross_fitted: bool, is_member: np.ndarray, groups: np.ndarray, level: float) -> float:
    """What an interval of the normal approximation is to be multiplied by: Student's quantile for as few groups as the
    smaller side has, and `CROSS_FITTED`."""
    fewest = min(len(np.unique(groups[side])) for side in (is_member, ~is_member))
    tail = (1.0 + level) / 2
    student = float(stdtrit(fewest - 1, tail) / ndtri(tail)) if fewest > 1 else 1.0
    return student * (CROSS_FITTED if cross_fitted else 1.0)


def _widened(area: stats.AucEstimate, factor: float) -> stats.AucEstimate:
    """The estimate with its interval, on the logit scale, `factor` times as wide; an exact bound stays as it is."""
    if not 0.0 < area.low < area.value < area.high < 1.0:
        return area
    centre = logit(area.value)
    low, high = (float(expit(centre + factor * (logit(end) - centre))) for end in (area.low, area.high))
    return stats.AucEstimate(area.value, low, high, float(2 * ndtr(ndtri(area.p_value / 2) / factor)))


def _area(scores: np.ndarray, is_member: np.ndarray, level: float, groups: np.ndarray | None) -> stats.AucEstimate:
    sides = [side & np.isfinite(scores) for side in (is_member, ~is_member)]
    owners = None if groups is None else (groups[sides[0]], groups[sides[1]])
    return stats.auc(scores[sides[0]], scores[sides[1]], level, owners)


def placebo_control(scores: np.ndarray, is_member: np.ndarray, groups: np.ndarray | None = None) -> dict[str, Any]:
    """An attack that is given the teacher, with a model in place of the student that never met it."""
    return negative_control(
        scores,
        is_member,
        "In a model that never met the teacher the attack finds nothing.",
        "The attack hears the teacher itself: its figure is no measure of what the student gives away.",
        groups,
    )


def overlap_control(
    scores: pd.DataFrame, overlap: Mapping[str, float], groups: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Each attack's AUC against the non-members that share no 13-gram with a member, and against those that do.

    overlap: record id of each non-member -> share of its 13-grams that stand in a member (NaN: it has none). Where
    attacks do worse against overlapping non-members, these were members in part (Duan et al. 2024, arXiv 2402.07841).
    """
    names = [c for c in scores.columns if c not in KEYS]
    is_member = (scores["role"] == MEMBER).to_numpy()
    shares = np.array([np.nan_to_num(overlap.get(i, np.nan)) for i in scores["record_id"]])
    strata = {"none": ~is_member & (shares == 0.0), "some": ~is_member & (shares > 0.0)}
    owners = groups_of(scores, groups)
    report: dict[str, Any] = {}
    for stratum, rows in strata.items():
        report[stratum] = {"n_nonmembers": int(rows.sum()), "attacks": {}}
        for name in names:
            column = scores[name].to_numpy(np.float64)
            sides = [side & np.isfinite(column) for side in (is_member, rows)]
            pair = None if owners is None else (owners[sides[0]], owners[sides[1]])
            area = stats.auc(column[sides[0]], column[sides[1]], LEVEL, pair)
            report[stratum]["attacks"][name] = {"auc": area.value, "auc_ci95": [area.low, area.high]}
    return report
