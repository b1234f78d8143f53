"""What an audit means, in plain words: how many members an attacker names, how sure that is, what may mislead.

Every sentence is made from the judgement that decides the outcome (`kdleak.auditing.judgement`), so that none claims
more than its interval covers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from kdleak.attacks import ATTACKS
from kdleak.attacks.registry import AUDITOR
from kdleak.auditing.controls import FAILED, is_model, who_is
from kdleak.auditing.judgement import (
    BLIND,
    CANNOT_TELL,
    FEW_GROUPS,
    LEAK,
    LISTS_DIFFER,
    NARROW,
    NO_BLIND,
    NONE,
    NULLS,
    SWAPPED,
    BestAttack,
    Judgement,
    reference_attacks,
)

#: Why nothing can be told, as the headline begins.
_CANNOT = {
    NO_BLIND: "The control for lists that differ could not run",
    FEW_GROUPS: "Too few records are independent of each other",
    NARROW: "The intervals do not hold on these records",
}


def verdict(
    judged: Judgement,
    attacks: Mapping[str, Mapping[str, Any]],
    controls: Mapping[str, Any],
    *,
    beside: Mapping[str, Mapping[str, Any]],
    memorization: Mapping[str, Any] | None,
    left_out: Mapping[str, str],
    cut: Mapping[str, int],
) -> dict[str, Any]:
    """{kind, headline, sentences, strongest, power, excess}: the outcome, in the order in which it should be read.

    attacks:  {auc, auc_ci95} of the student by attack.
    beside:   the same of `no_kd` and `teacher` where they were given, and for `no_kd` the `excess` over it.
    left_out: attack -> why it did not run. cut: {prompts, responses} that were longer than the limits.
    """
    kind, best, blind = judged.kind, judged.best, controls["blind"]
    sentences = [_operating_point(best), *_warnings(judged, controls), *_area(best, kind)]
    if kind == NONE:
        sentences = [*_strong(left_out), _power(judged), *sentences]
    sentences += [*_excess(judged), *_compared(judged, beside), *_auditors(attacks), *_seen(blind), *_cut(cut)]
    if memorization is not None:
        sentences.append(_memorized(memorization))
    excess = {name: {"excess": e.value, "at_least": e.low, "null": e.null} for name, e in judged.excess.items()}
    return {
        "kind": kind,
        "headline": _headline(judged, blind),
        "sentences": sentences,
        "strongest": asdict(best),
        "power": judged.power,
        "excess": {"attacks": excess, "nulls": list(judged.nulls), "leaking": list(judged.leaking)},
    }


def _headline(judged: Judgement, blind: Mapping[str, Any]) -> str:
    without = "by a model that saw neither" if is_model(blind.get("scorer")) else "without any model"
    why = _CANNOT.get(judged.why, "")
    return {
        LISTS_DIFFER: f"The two lists can be told apart {without}: no figure below is evidence of a leak.",
        CANNOT_TELL: f"{why}: this audit says neither that the student leaks nor that it does not.",
        SWAPPED: "The non-members look more like training data than the members: are the two lists swapped?",
        LEAK: "The student tells members from non-members: it leaks.",
        NONE: "No leak was found by these attacks on these records.",
    }[judged.kind]


def _strong(left_out: Mapping[str, str]) -> list[str]:
    """The strong attacks that did not run; what was not tried is not ruled out."""
    reasons: dict[str, list[str]] = {}
    for name in reference_attacks(list(left_out)):
        reasons.setdefault(left_out[name], []).append(f"'{name}'")
    return [f"Strong attacks did not run: {', '.join(names)} ({why})." for why, names in reasons.items()]


def _power(judged: Judgement) -> str:
    if judged.noticeable_auc >= 1.0:
        return "So few records would have shown no leak of any size with certainty: this audit rules nothing out."
    enough = "" if judged.power["sufficient"] else " A smaller leak may well be there: more records would show it."
    return f"An AUC above {judged.noticeable_auc:.2f} by any of these attacks would have been noticed (95 %).{enough}"


def _excess(judged: Judgement) -> list[str]:
    """What the student was held against; without a model that never met the teacher, what cannot be known."""
    sentences = []
    if judged.kind in (LEAK, NONE) and judged.best.attack in judged.excess:
        e = judged.excess[judged.best.attack]
        called = {"baseline": "the baseline", "pretrained": "its pretrained base", BLIND: "the texts alone"}[e.null]
        reads = "at least" if e.low > 0 else "no excess is shown; lower bound"
        sentences.append(
            f"Beyond what {called} would give by '{judged.best.attack}', its AUC is {e.value:+.2f} ({reads} "
            f"{e.low:+.2f}, for all attacks and comparisons at once)."
        )
    if not judged.knows_a_null_model:
        held = bool(set(judged.nulls) & set(NULLS.values()))
        why = (
            f"'{judged.best.attack}', which costs passes of its own, ran on no model that never met the teacher"
            if held
            else "No model that never met the teacher was given (--baseline, --pretrained)"
        )
        sentences.append(
            f"{why}: whether the student has this from its teacher, from its own pretraining or from easier texts, "
            "this audit cannot know."
        )
    return sentences


def _seen(blind: Mapping[str, Any]) -> list[str]:
    if blind["state"] == FAILED or blind.get("noticeable_auc") is None:
        return []
    return [
        f"Lists that a blind attack tells apart with an AUC above {blind['noticeable_auc']:.2f} would have been seen."
    ]


def _cut(cut: Mapping[str, int]) -> list[str]:
    if not cut["prompts"] and not cut["responses"]:
        return []
    return [
        f"{cut['prompts']} prompts and {cut['responses']} responses were longer than the limits and were cut: the "
        "model was asked about less than it may have been trained on."
    ]


def _operating_point(best: BestAttack) -> str:
    """The sentence that the audit is for."""
    low, high = (round(1000 * share) for share in best.tpr_ci)
    figure = f"names {round(1000 * best.tpr)} (95 % interval {low} to {high}; attack '{best.named_by}')"
    if best.below_resolution or best.target_fpr == 0.0:
        allowed = f"accepts no false accusation among these {best.nonmembers} non-members"
        guess = ""
    else:
        allowed = f"accepts {_count(1000 * best.target_fpr)} false accusations in 1,000 non-members"
        guess = f" A guess would name {_count(1000 * best.target_fpr)}."
    return f"Of 1,000 members, an attacker who {allowed} {figure}.{guess}"


def _warnings(judged: Judgement, controls: Mapping[str, Any]) -> list[str]:
    sentences, best, kind, blind = [], judged.best, judged.kind, controls["blind"]
    if best.below_resolution:
        sentences.append(
            f"There are too few non-members for the rate asked for, {100 * best.target_fpr:g} %: the finest that "
            f"{best.nonmembers} can show is 1/{best.nonmembers} = {100 / best.nonmembers:.2g} %. The figure above is "
            f"for no false accusation at all, where the true rate may be as high as {100 * best.fpr_high:.2g} %."
        )
    if kind == LISTS_DIFFER:
        low, high = blind["auc_ci95"]
        who, scorer = who_is(blind.get("scorer")), blind.get("scorer")
        sentences.append(
            f"{who[0].upper()}{who[1:]} reaches an AUC of {blind['auc']:.2f} [{low:.2f}, {high:.2f}] ({scorer}): "
            "the lists differ in themselves (source, date, length, topic). Draw both lists from one pool by chance."
        )
    if kind == CANNOT_TELL:
        few = "Fewer than five groups of records (a shared context, near-duplicates) make up a list."
        said = {FEW_GROUPS: few, NARROW: controls.get("permutation", {}).get("verdict")}.get(judged.why)
        sentences.append(f"{said or blind['verdict']} The figures are shown as they are, and prove nothing.")
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


def _compared(judged: Judgement, beside: Mapping[str, Mapping[str, Any]]) -> list[str]:
    sentences, attack = [], judged.best.attack
    if "no_kd" in beside and attack in beside["no_kd"]:
        other = beside["no_kd"][attack]
        difference, (low, high) = other["excess"]["difference"], other["excess"]["ci95"]
        bound = judged.excess[attack].differences.get("baseline", (0.0, -1.0))[1] if attack in judged.excess else -1.0
        reading = (
            "distillation added to the leak"
            if bound > 0
            else "distillation took from it"
            if difference < 0 and other["excess"]["p_holm"] < 0.05
            else "no effect of distillation is shown"
        )
        sentences.append(
            f"The baseline, trained without the teacher, has an AUC of {other['auc']:.2f} by the same attack: the "
            f"student's is {difference:+.2f} [{low:+.2f}, {high:+.2f}] from it"
            + (f", so {reading}." if judged.kind in (LEAK, NONE) else ".")
        )
    if "teacher" in beside and attack in beside["teacher"]:
        other = beside["teacher"][attack]
        sentences.append(f"The teacher's own AUC by this attack is {other['auc']:.2f}.")
    return sentences


def _auditors(attacks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"An auditor, who holds the teacher too, reaches {attacks[name]['auc']:.2f} "
        f"[{attacks[name]['auc_ci95'][0]:.2f}, {attacks[name]['auc_ci95'][1]:.2f}] by '{name}'."
        for name in attacks
        if ATTACKS[name].whose == AUDITOR
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
