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
from kdleak.auditing.lists import MEMBER
from kdleak.auditing.membership import KEYS, LEVEL

if TYPE_CHECKING:
    import pandas as pd

#: Kinds of outcome: the lists differ in themselves; non-members score higher; a leak; none that these records show.
LISTS_DIFFER, SWAPPED, LEAK, NONE = "lists_differ", "swapped", "leak", "no_leak_found"


@dataclass(frozen=True)
class Strongest:
    """The attack that separates the lists most. [auc_low, auc_high] and `named_ci` hold for all attacks at once.

    auc_ceiling: the highest upper end among all attacks.
    asked:      the share of non-members that an attacker may accuse falsely.
    accused:    how many of the `nonmembers` lie above the threshold; 0 where `asked` is finer than one of them.
    fpr_high:   upper bound of that threshold's true false-positive rate.
    named:      the share of members named.
    """

    attack: str
    auc: float
    auc_low: float
    auc_high: float
    auc_ceiling: float
    asked: float
    finer: bool
    accused: int
    fpr_high: float
    named: float
    named_ci: tuple[float, float]
    members: int
    nonmembers: int
    attacks: int


def strongest_attack(scores: pd.DataFrame, fpr: float) -> Strongest:
    """The attack of `scores` (record_id, role, task, one column an attack) whose AUC lies farthest from one half,
    on whichever side; where that distance shows nothing, the attack with the highest AUC.

    Attacks that are given the teacher or the baseline are left out where there are others: an attacker has neither."""
    every = [name for name in scores.columns if name not in KEYS]
    names = [name for name in every if not auditors_own(name)] or every
    member = (scores["role"] == MEMBER).to_numpy()
    level = 1.0 - (1.0 - LEVEL) / len(names)
    found = {}
    for name in names:
        values = scores[name].to_numpy(np.float64)
        sides = [values[rows & np.isfinite(values)] for rows in (member, ~member)]
        if len(sides[0]) and len(sides[1]):
            found[name] = (sides, stats.auc(*sides, level))
    name = max(found, key=lambda n: (abs(found[n][1].value - 0.5), n))
    if found[name][1].low <= 0.5 <= found[name][1].high:  # nothing is shown either way: the attacker's best
        name = max(found, key=lambda n: (found[n][1].value, n))
    (inside, outside), area = found[name]
    point = stats.operating_point(inside, outside, fpr, level)
    return Strongest(
        attack=name,
        auc=area.value,
        auc_low=area.low,
        auc_high=area.high,
        auc_ceiling=max(each.high for _, each in found.values()),
        asked=fpr,
        finer=point.below_resolution,
        accused=point.false_positives,
        fpr_high=point.fpr_ci[1],
        named=point.tpr,
        named_ci=point.tpr_ci,
        members=len(inside),
        nonmembers=len(outside),
        attacks=len(names),
    )


def auditors_own(attack: str) -> bool:
    """Whether `attack` is given what only an auditor holds: the teacher, or the student's twin without one."""
    return bool({"teacher", "no_kd"} & set(ATTACKS[attack].needs.references))


def verdict(
    strongest: Strongest,
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
    kind = _kind(strongest, blind)
    headline = {
        LISTS_DIFFER: "The two lists can be told apart without any model: no figure below is evidence of a leak.",
        SWAPPED: "The non-members look more like training data than the members: are the two lists swapped?",
        LEAK: "The student tells members from non-members: it leaks.",
        NONE: "No leak was found by these attacks on these records.",
    }[kind]
    sentences = [_named(strongest), *_warnings(strongest, blind, kind), *_area(strongest, kind)]
    sentences += [*_compared(beside, strongest.attack), *_auditors(attacks)]
    if memorization is not None:
        sentences.append(_given_back(memorization))
    return {"kind": kind, "headline": headline, "sentences": sentences, "strongest": vars(strongest)}


def _kind(strongest: Strongest, blind: Mapping[str, Any]) -> str:
    if not blind["passed"]:
        return LISTS_DIFFER
    if strongest.auc_high < 0.5:
        return SWAPPED
    if strongest.auc_low > 0.5 or strongest.named_ci[0] > strongest.asked:
        return LEAK
    return NONE


def _named(s: Strongest) -> str:
    """The sentence that the audit is for."""
    low, high = (round(1000 * share) for share in s.named_ci)
    figure = f"names {round(1000 * s.named)} (95 % interval {low} to {high}; attack '{s.attack}')"
    if s.finer or s.asked == 0.0:
        allowed = f"accepts no false accusation among these {s.nonmembers} non-members"
        guess = ""
    else:
        allowed = f"accepts {_count(1000 * s.asked)} false accusations in 1,000 non-members"
        guess = f" A guess would name {_count(1000 * s.asked)}."
    return f"Of 1,000 members, an attacker who {allowed} {figure}.{guess}"


def _warnings(s: Strongest, blind: Mapping[str, Any], kind: str) -> list[str]:
    said = []
    if s.finer:
        said.append(
            f"There are too few non-members for the rate asked for, {100 * s.asked:g} %: the finest that "
            f"{s.nonmembers} can show is 1/{s.nonmembers} = {100 / s.nonmembers:.2g} %. The figure above is for no "
            f"false accusation at all, where the true rate may be as high as {100 * s.fpr_high:.2g} %."
        )
    if kind == LISTS_DIFFER:
        low, high = blind["auc_ci95"]
        said.append(
            f"A blind attack that sees the texts alone reaches an AUC of {blind['auc']:.2f} [{low:.2f}, {high:.2f}]: "
            "the lists differ in themselves (source, date, length, topic). Draw both lists from one pool by chance."
        )
    if kind == SWAPPED:
        said.append(
            f"The attack '{s.attack}' has an AUC of {s.auc:.2f} [{s.auc_low:.2f}, {s.auc_high:.2f}], below one half. "
            "Either the lists are swapped, or the non-members are easier texts; the figures are shown as they are."
        )
    return said


def _area(s: Strongest, kind: str) -> list[str]:
    if kind == SWAPPED:
        return []
    interval = f"{s.auc:.2f} [{s.auc_low:.2f}, {s.auc_high:.2f}]"
    sentence = f"The best of {s.attacks} attacks ranks a member above a non-member with probability {interval}"
    if kind == NONE:
        ceiling = f"an AUC beyond {s.auc_ceiling:.2f} by any of these attacks is ruled out"
        return [f"{sentence}; one half is chance, and {ceiling}."]
    return [f"{sentence}; one half is chance."]


def _compared(beside: Mapping[str, Mapping[str, Any]], attack: str) -> list[str]:
    said = []
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
        said.append(
            f"The baseline, trained without the teacher, has an AUC of {other['auc']:.2f} by the same attack: the "
            f"student's is {difference:+.2f} [{low:+.2f}, {high:+.2f}] from it, so {judged}."
        )
    if "teacher" in beside and attack in beside["teacher"]:
        other = beside["teacher"][attack]
        said.append(f"The teacher's own AUC by this attack is {other['auc']:.2f}.")
    return said


def _auditors(attacks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"An auditor, who holds the teacher and the baseline too, reaches {attacks[name]['auc']:.2f} "
        f"[{attacks[name]['auc_ci95'][0]:.2f}, {attacks[name]['auc_ci95'][1]:.2f}] by '{name}': what no outsider can."
        for name in attacks
        if auditors_own(name)
    ]


def _given_back(report: Mapping[str, Any]) -> str:
    accuracy, back = report["token_accuracy"], report["reproduced"]
    low, high = (100 * end for end in accuracy["gap_ci95"])
    right, other = (100 * accuracy[side] for side in ("members", "nonmembers"))
    said = (
        f"Word for word, it gets {right:.1f} % of the members' first {report['tokens']} tokens right and {other:.1f} % "
        f"of the non-members' (difference {100 * accuracy['gap']:+.1f} points [{low:+.1f}, {high:+.1f}])"
    )
    if not back["n_members"] or not back["n_nonmembers"]:
        return f"{said}; no response is long enough (8 tokens) to count as given back whole."
    return (
        f"{said}; it gives back all of them for {100 * back['members']:.1f} % of the members and "
        f"{100 * back['nonmembers']:.1f} % of the non-members."
    )


def _count(value: float) -> str:
    return f"{value:.3g}"
