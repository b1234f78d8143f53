"""What an audit means, in plain words: how many members an attacker names, how sure that is, what may mislead.

An attacker takes the attack that works best, so every interval here holds for all attacks that ran at once
(Bonferroni): choosing the best of them afterwards costs nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak import stats
from kdleak.attacks import ATTACKS
from kdleak.auditing.membership import KEYS, LEVEL
from kdleak.data.sides import MEMBER

if TYPE_CHECKING:
    import pandas as pd

#: Kinds of outcome: the lists differ in themselves; non-members score higher; a leak; none that these records show.
LISTS_DIFFER, SWAPPED, LEAK, NONE = "lists_differ", "swapped", "leak", "no_leak_found"


@dataclass(frozen=True)
class BestAttack:
    """The attack that separates the lists most. [auc_low, auc_high] and `tpr_ci` hold for all attacks at once.

    auc_ceiling:      the highest upper end among all attacks.
    target_fpr:       the false-positive rate that an attacker allows.
    below_resolution: whether `target_fpr` is finer than one of the nonmembers.
    false_positives:  how many of the `nonmembers` lie above the threshold; 0 where it is below the resolution.
    fpr_high:         upper bound of that threshold's true false-positive rate.
    tpr:              the share of members above the threshold.
    attacks:          how many attacks it was chosen from.
    """

    attack: str
    auc: float
    auc_low: float
    auc_high: float
    auc_ceiling: float
    target_fpr: float
    below_resolution: bool
    false_positives: int
    fpr_high: float
    tpr: float
    tpr_ci: tuple[float, float]
    members: int
    nonmembers: int
    attacks: int


def best_attack(scores: pd.DataFrame, fpr: float) -> BestAttack:
    """The attack of `scores` (record_id, role, task, one column an attack) whose AUC lies farthest from one half,
    on whichever side; where that distance shows nothing, the attack with the highest AUC.

    Attacks that are given the teacher or the baseline are left out where there are others: an attacker has neither."""
    every = [name for name in scores.columns if name not in KEYS]
    names = [name for name in every if not needs_auditor(name)] or every
    member = (scores["role"] == MEMBER).to_numpy()
    level = 1.0 - (1.0 - LEVEL) / len(names)
    areas = {}
    for name in names:
        values = scores[name].to_numpy(np.float64)
        sides = [values[rows & np.isfinite(values)] for rows in (member, ~member)]
        if len(sides[0]) and len(sides[1]):
            areas[name] = (sides, stats.auc(*sides, level))
    name = max(areas, key=lambda n: (abs(areas[n][1].value - 0.5), n))
    if areas[name][1].low <= 0.5 <= areas[name][1].high:  # nothing is shown either way: the attacker's best
        name = max(areas, key=lambda n: (areas[n][1].value, n))
    (inside, outside), area = areas[name]
    point = stats.operating_point(inside, outside, fpr, level)
    return BestAttack(
        attack=name,
        auc=area.value,
        auc_low=area.low,
        auc_high=area.high,
        auc_ceiling=max(each.high for _, each in areas.values()),
        target_fpr=fpr,
        below_resolution=point.below_resolution,
        false_positives=point.false_positives,
        fpr_high=point.fpr_ci[1],
        tpr=point.tpr,
        tpr_ci=point.tpr_ci,
        members=len(inside),
        nonmembers=len(outside),
        attacks=len(names),
    )


def needs_auditor(attack: str) -> bool:
    """Whether `attack` is given what only an auditor holds: the teacher, or the no-KD student."""
    return bool({"teacher", "no_kd"} & set(ATTACKS[attack].needs.references))


def verdict(
    best: BestAttack,
    attacks: Mapping[str, Mapping[str, Any]],
    controls: Mapping[str, Any],
    *,
    beside: Mapping[str, Mapping[str, Any]],
    memorization: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """{kind, headline, sentences, strongest}: the outcome, in the order in which it should be read.

    attacks: {auc, auc_ci95} of the student by attack.
    beside:  the same of `no_kd` and `teacher` where they were given, and for `no_kd` the `excess` over it.
    """
    blind = controls["blind"]
    kind = _kind(best, blind)
    headline = {
        LISTS_DIFFER: "The two lists can be told apart without any model: no figure below is evidence of a leak.",
        SWAPPED: "The non-members look more like training data than the members: are the two lists swapped?",
        LEAK: "The student tells members from non-members: it leaks.",
        NONE: "No leak was found by these attacks on these records.",
    }[kind]
    sentences = [_operating_point(best), *_warnings(best, blind, kind), *_area(best, kind)]
    sentences += [*_compared(beside, best.attack), *_auditors(attacks)]
    if memorization is not None:
        sentences.append(_memorized(memorization))
    return {"kind": kind, "headline": headline, "sentences": sentences, "strongest": vars(best)}


def _kind(best: BestAttack, blind: Mapping[str, Any]) -> str:
    if blind["state"] != "passed":
        return LISTS_DIFFER
    if best.auc_high < 0.5:
        return SWAPPED
    if best.auc_low > 0.5 or best.tpr_ci[0] > best.target_fpr:
        return LEAK
    return NONE


def _operating_point(best: BestAttack) -> str:
    """The sentence that the audit is for."""
    low, high = (round(1000 * share) for share in best.tpr_ci)
    figure = f"names {round(1000 * best.tpr)} (95 % interval {low} to {high}; attack '{best.attack}')"
    if best.below_resolution or best.target_fpr == 0.0:
        allowed = f"accepts no false accusation among these {best.nonmembers} non-members"
        guess = ""
    else:
        allowed = f"accepts {_count(1000 * best.target_fpr)} false accusations in 1,000 non-members"
        guess = f" A guess would name {_count(1000 * best.target_fpr)}."
    return f"Of 1,000 members, an attacker who {allowed} {figure}.{guess}"


def _warnings(best: BestAttack, blind: Mapping[str, Any], kind: str) -> list[str]:
    sentences = []
    if best.below_resolution:
        sentences.append(
            f"There are too few non-members for the rate asked for, {100 * best.target_fpr:g} %: the finest that "
            f"{best.nonmembers} can show is 1/{best.nonmembers} = {100 / best.nonmembers:.2g} %. The figure above is "
            f"for no false accusation at all, where the true rate may be as high as {100 * best.fpr_high:.2g} %."
        )
    if kind == LISTS_DIFFER:
        low, high = blind["auc_ci95"]
        sentences.append(
            f"A blind attack that sees the texts alone reaches an AUC of {blind['auc']:.2f} [{low:.2f}, {high:.2f}]: "
            "the lists differ in themselves (source, date, length, topic). Draw both lists from one pool by chance."
        )
    if kind == SWAPPED:
        interval = f"{best.auc:.2f} [{best.auc_low:.2f}, {best.auc_high:.2f}]"
        sentences.append(
            f"The attack '{best.attack}' has an AUC of {interval}, below one half. "
            "Either the lists are swapped, or the non-members are easier texts; the figures are shown as they are."
        )
    return sentences


def _area(best: BestAttack, kind: str) -> list[str]:
    if kind == SWAPPED:
        return []
    interval = f"{best.auc:.2f} [{best.auc_low:.2f}, {best.auc_high:.2f}]"
    sentence = f"The best of {best.attacks} attacks ranks a member above a non-member with probability {interval}"
    if kind == NONE:
        ceiling = f"an AUC beyond {best.auc_ceiling:.2f} by any of these attacks is ruled out"
        return [f"{sentence}; one half is chance, and {ceiling}."]
    return [f"{sentence}; one half is chance."]


def _compared(beside: Mapping[str, Mapping[str, Any]], attack: str) -> list[str]:
    sentences = []
    if "no_kd" in beside and attack in beside["no_kd"]:
        other = beside["no_kd"][attack]
        difference, (low, high) = other["excess"]["difference"], other["excess"]["ci95"]
        judged = (
            "distillation added to the leak"
            if low > 0
            else "distillation took from it"
            if high < 0
            else "no effect of distillation is shown"
        )
        sentences.append(
            f"The baseline, trained without the teacher, has an AUC of {other['auc']:.2f} by the same attack: the "
            f"student's is {difference:+.2f} [{low:+.2f}, {high:+.2f}] from it, so {judged}."
        )
    if "teacher" in beside and attack in beside["teacher"]:
        other = beside["teacher"][attack]
        sentences.append(f"The teacher's own AUC by this attack is {other['auc']:.2f}.")
    return sentences


def _auditors(attacks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"An auditor, who holds the teacher and the baseline too, reaches {attacks[name]['auc']:.2f} "
        f"[{attacks[name]['auc_ci95'][0]:.2f}, {attacks[name]['auc_ci95'][1]:.2f}] by '{name}': what no outsider can."
        for name in attacks
        if needs_auditor(name)
    ]


def _memorized(report: Mapping[str, Any]) -> str:
    accuracy, back = report["token_accuracy"], report["reproduced"]
    low, high = (100 * end for end in accuracy["gap_ci95"])
    right, other = (100 * accuracy[side] for side in ("members", "nonmembers"))
    sentence = (
        f"Word for word, it gets {right:.1f} % of the members' first {report['tokens']} tokens right and {other:.1f} % "
        f"of the non-members' (difference {100 * accuracy['gap']:+.1f} points [{low:+.1f}, {high:+.1f}])"
    )
    if not back["n_members"] or not back["n_nonmembers"]:
        return f"{sentence}; no response is long enough (8 tokens) to count as given back whole."
    return (
        f"{sentence}; it gives back all of them for {100 * back['members']:.1f} % of the members and "
        f"{100 * back['nonmembers']:.1f} % of the non-members."
    )


def _count(value: float) -> str:
    return f"{value:.3g}"
