"""What an audit's scores show: a leak is what the student gives away beyond every model that never met the teacher.

An attacker takes the attack that works best, so every bound here holds for all attacks that ran at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtri

from kdleak import stats
from kdleak.attacks import ATTACKS
from kdleak.attacks.registry import ATTACKER
from kdleak.auditing.controls import FAILED, NOTICED, PASSED
from kdleak.auditing.membership import KEYS, LEVEL, attackers, groups_of
from kdleak.core.errors import KdleakError
from kdleak.data.sides import MEMBER

if TYPE_CHECKING:
    import pandas as pd

#: Kinds of outcome: the lists differ in themselves; no control could run; non-members score higher; a leak; none that
#: these records show.
LISTS_DIFFER, CANNOT_TELL, SWAPPED, LEAK, NONE = "lists_differ", "cannot_tell", "swapped", "leak", "no_leak_found"
#: Why nothing can be told: the blind control, too few groups, intervals that shuffled labels show to be too narrow.
NO_BLIND, FEW_GROUPS, NARROW = "blind control could not run", "too few groups", "intervals too narrow"
#: What attacks call the models that never met the teacher -> what the verdict calls them.
NULLS = {"no_kd": "baseline", "pretrained": "pretrained"}
BLIND = "blind"
#: "No leak found" is good news only where a leak of this AUC would have been noticed with a probability of 95 %.
SUFFICIENT = 0.65
#: A leak is looked for in the AUC and at the stated false-positive rate: half of the error probability each.
_EACH = 1.0 - (1.0 - LEVEL) / 2.0
#: Groups a side that a variance between groups can be taken from.
_FEWEST_GROUPS = 5


@dataclass(frozen=True)
class BestAttack:
    """The attack with the highest AUC (the lowest, where the lists look swapped), and the one that names most members
    at the stated false-positive rate. [auc_low, auc_high] and `tpr_ci` hold for all attacks at once.

    auc_ceiling:      the highest upper end among all attacks.
    named_by:         the attack with the highest TPR at `target_fpr`, which need not be `attack`.
    target_fpr:       the false-positive rate that an attacker allows.
    below_resolution: whether `target_fpr` is finer than one of the nonmembers.
    false_positives:  how many of the `nonmembers` lie above the threshold; 0 where it is below the resolution.
    fpr_high:         upper bound of that threshold's true false-positive rate.
    tpr, tpr_ci:      the share of members above the threshold, and its interval at the stated rate.
    attacks:          how many attacks it was chosen from.
    """

    attack: str
    auc: float
    auc_low: float
    auc_high: float
    auc_ceiling: float
    named_by: str
    target_fpr: float
    below_resolution: bool
    false_positives: int
    fpr_high: float
    tpr: float
    tpr_ci: tuple[float, float]
    members: int
    nonmembers: int
    attacks: int


@dataclass(frozen=True)
class Judgement:
    """kind: the outcome. leaking: the attacks that show a leak. excess: attack -> `stats.Excess` over the nulls.

    nulls:          what the student was held against: baseline, pretrained, blind.
    noticeable_auc: the AUC that each of these attacks would have been noticed with, 95 %.
    why:            where nothing can be told, why: NO_BLIND, FEW_GROUPS or NARROW.
    """

    kind: str
    best: BestAttack
    leaking: tuple[str, ...]
    excess: Mapping[str, stats.Excess]
    nulls: tuple[str, ...]
    noticeable_auc: float
    why: str = ""

    @property
    def knows_a_null_model(self) -> bool:
        """Whether the attack of the verdict was held against a model that never met the teacher."""
        held = self.excess.get(self.best.attack)
        return bool(set(self.nulls if held is None else held.differences) & set(NULLS.values()))

    @property
    def power(self) -> dict[str, Any]:
        enough = bool(self.noticeable_auc <= SUFFICIENT)
        return {"noticeable_auc": self.noticeable_auc, "probability": NOTICED, "sufficient": enough}


def judge(
    scores: pd.DataFrame,
    compared: Mapping[str, pd.DataFrame],
    blind: np.ndarray,
    blind_state: str,
    fpr: float,
    groups: Mapping[str, str] | None = None,
    permutation_state: str = PASSED,
) -> Judgement:
    """Judge the student's `scores` (record_id, role, task, one column an attack) against its nulls.

    compared: score tables of models beside the student, by what attacks call them; those of `NULLS` never met the
    teacher. blind: (n,) scores of the texts alone, in the order of `scores`; NaN: none. groups: record id -> group.

    A leak needs one attack whose AUC exceeds one half and the AUC of every null, or whose TPR at `fpr` exceeds `fpr`
    and that of every null; with simultaneous bounds the probability of a false one is at most 5 %. Records of a group
    are one draw. Attacks of an auditor, who holds the teacher, are left out. Nothing leaks where the blind control has
    not passed or the permutation control has failed, and nothing can be told from fewer than five groups a side.
    Raises KdleakError where no attack has a score on both sides.
    """
    table = scores.reset_index(drop=True)
    member = (table["role"] == MEMBER).to_numpy()
    names = attackers([name for name in table.columns if name not in KEYS])
    student = {name: _sides(table[name].to_numpy(np.float64), member) for name in names}
    nulls: dict[str, dict[str, stats.Scores]] = {}
    for model, called in NULLS.items():
        if model in compared:
            other = compared[model].set_index("record_id").loc[table["record_id"]]
            shared = [name for name in names if name in other.columns]
            if shared:
                nulls[called] = {name: _sides(other[name].to_numpy(np.float64), member) for name in shared}
    if np.isfinite(blind).any():
        nulls[BLIND] = dict.fromkeys(names, _sides(blind, member))
    owner = groups_of(table, groups)
    owners = None if owner is None else (owner[member], owner[~member])
    excess = stats.simultaneous_excess(student, nulls, _EACH, owners)
    areas = _areas(student, owners)
    if not areas:
        raise KdleakError("no attack has a defined score on both lists: nothing can be judged; give longer responses")
    defined = {name: _finite(pair, owners) for name, pair in student.items()}
    pairs, of_pairs = {n: pair for n, (pair, _) in defined.items()}, {n: owned for n, (_, owned) in defined.items()}
    points = stats.operating_points(pairs, fpr, LEVEL, of_pairs)
    above = [name for name, e in excess.items() if e.low > 0.0 and areas[name].low > 0.5]
    more = [name for name in points if name not in above]
    above += [name for name in more if _names_more(name, points[name], nulls, fpr, len(points), owners)]
    few = owners is not None and min(len(np.unique(side)) for side in owners) < _FEWEST_GROUPS
    why = NO_BLIND if blind_state not in (PASSED, FAILED) else FEW_GROUPS if few else ""
    why = why or (NARROW if permutation_state == FAILED else "")
    kind = _kind(blind_state, why, above, areas)
    pool = list(areas) if kind == SWAPPED else above or list(areas)
    best = min(pool, key=lambda n: (areas[n].value * (1 if kind == SWAPPED else -1), n))
    return Judgement(
        kind,
        _best(best, areas, points, fpr, student),
        tuple(above),
        excess,
        tuple(nulls),
        _noticeable(areas, excess),
        why if kind == CANNOT_TELL else "",
    )


def reference_attacks(names: Sequence[str]) -> list[str]:
    """The attacks of an attacker that compare the student with another model: the strong ones."""
    return [n for n in names if n in ATTACKS and ATTACKS[n].needs.references and ATTACKS[n].whose == ATTACKER]


def _kind(blind_state: str, why: str, above: Sequence[str], areas: Mapping[str, stats.AucEstimate]) -> str:
    if blind_state == FAILED:
        return LISTS_DIFFER
    if why:
        return CANNOT_TELL
    if above:
        return LEAK
    # One artefact of length is no swap: the reference attacks, which know how hard a text is, have to agree.
    agreeing = [areas[name] for name in reference_attacks(list(areas)) or areas]
    if all(area.value < 0.5 for area in agreeing) and any(area.high < 0.5 for area in agreeing):
        return SWAPPED
    return NONE


def _areas(student: Mapping[str, stats.Scores], owners: stats.Groups | None) -> dict[str, stats.AucEstimate]:
    """Each attack's AUC, with intervals that hold together (Bonferroni); attacks without a score are left out."""
    usable = [name for name, pair in student.items() if all(np.isfinite(side).any() for side in pair)]
    level = 1.0 - (1.0 - LEVEL) / max(1, len(usable))
    areas = {}
    for name in usable:
        pair, groups = _finite(student[name], owners)
        areas[name] = stats.auc(*pair, level, groups)
    return areas


def _names_more(
    name: str,
    point: stats.OperatingPoint,
    nulls: Mapping[str, Mapping[str, stats.Scores]],
    fpr: float,
    attacks: int,
    owners: stats.Groups | None,
) -> bool:
    """Whether the attack names more members at the stated rate than a guess, and than it does on every null."""
    if not point.tpr_ci[0] > fpr:
        return False
    level = 1.0 - (1.0 - LEVEL) / attacks
    others = [_finite(by_attack[name], owners) for by_attack in nulls.values() if name in by_attack]
    bounds = [
        stats.operating_point(*pair, fpr, level, groups).tpr_ci[1]
        for pair, groups in others
        if len(pair[0]) and len(pair[1])
    ]
    return bool(bounds) and point.tpr_ci[0] > max(bounds)


def _noticeable(areas: Mapping[str, stats.AucEstimate], excess: Mapping[str, stats.Excess]) -> float:
    """The AUC at which the least sensitive attack would have shown a leak with a probability of 95 %.

    A bound lies its reach c * error below the difference, c at least z(.975) = 1.96: a true excess of (c + z(.95))
    errors, at most 1.84 reaches, has a bound above zero with that probability. The null's AUC, one half or more, comes
    on top. 1 where no attack has a null.
    """
    factor = 1.0 + float(ndtri(NOTICED) / ndtri(_EACH))
    needed = []
    for name, e in excess.items():
        for value, low in e.differences.values():
            needed.append(max(0.5, areas[name].value - value) + factor * (value - low))
    return float(min(1.0, max(needed))) if needed else 1.0


def _best(
    name: str,
    areas: Mapping[str, stats.AucEstimate],
    points: Mapping[str, stats.OperatingPoint],
    fpr: float,
    student: Mapping[str, stats.Scores],
) -> BestAttack:
    named_by = max(points, key=lambda each: (points[each].tpr, points[each].tpr_ci[0], each == name, each))
    point, area, (pair, _) = points[named_by], areas[name], _finite(student[named_by], None)
    return BestAttack(
        attack=name,
        auc=area.value,
        auc_low=area.low,
        auc_high=area.high,
        auc_ceiling=max(each.high for each in areas.values()),
        named_by=named_by,
        target_fpr=fpr,
        below_resolution=point.below_resolution,
        false_positives=point.false_positives,
        fpr_high=point.fpr_ci[1],
        tpr=point.tpr,
        tpr_ci=point.tpr_ci,
        members=len(pair[0]),
        nonmembers=len(pair[1]),
        attacks=len(areas),
    )


def _sides(values: np.ndarray, member: np.ndarray) -> stats.Scores:
    return values[member], values[~member]


def _finite(pair: stats.Scores, owners: stats.Groups | None) -> tuple[stats.Scores, stats.Groups | None]:
    """The defined scores of either side, and their groups."""
    kept = np.isfinite(pair[0]), np.isfinite(pair[1])
    groups = None if owners is None else (owners[0][kept[0]], owners[1][kept[1]])
    return (pair[0][kept[0]], pair[1][kept[1]]), groups
