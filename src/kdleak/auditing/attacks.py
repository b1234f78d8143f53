"""From what the models gave to scores, and from scores to the figures of an audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak.attacks import ATTACKS, AttackInput
from kdleak.attacks.teacher_aware import without_teacher
from kdleak.auditing.comparisons import exposed_overlap, inherited, paired_differences
from kdleak.auditing.controls import blind_control, overlap_control, permutation_control, placebo_control
from kdleak.auditing.lists import MEMBER, NONMEMBER
from kdleak.auditing.membership import KEYS, membership_report
from kdleak.auditing.passes import CONTINUED, Answer
from kdleak.core.errors import KdleakError
from kdleak.data.overlap import ngram_overlap
from kdleak.memorization.report import Memorization, memorization_report

if TYPE_CHECKING:
    import pandas as pd

#: The models of an audit: option -> what attacks call it. The student is the one that is attacked.
ROLES = {
    "student": "target",
    "teacher": "teacher",
    "reference": "external",
    "baseline": "no_kd",
    "pretrained": "pretrained",
}
#: What an attack lacks -> the option that would give it.
_REMEDIES = {
    "reference 'external'": "--reference, a model of another architecture that saw neither list",
    "reference 'pretrained'": "--pretrained, the student as it was before any fine-tuning",
    "reference 'teacher'": "--teacher",
    "reference 'no_kd'": "--baseline",
    "population under 'target'": "--population, records that no model was trained on",
    "population under 'pretrained'": "--population, records that no model was trained on",
    "variant 'prefixed'": "--population, records that no model was trained on",
    "variant 'lowercase'": "a run without --quick",
    "perturbed passes": "a run without --quick",
}
#: The attack that is given the teacher, and so needs a placebo.
TEACHER_AWARE = "teacher_aware"
_SIDES = {"member_role": MEMBER, "nonmember_role": NONMEMBER}
#: Records in the list of the most exposed; words in a shared run.
_EXPOSED, _NGRAM = 20, 13


def score_table(
    option: str, answers: Mapping[str, Answer], frame: pd.DataFrame, names: Sequence[str]
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Scores of the attacks `names` on the model of `option`: record_id, role, task, one column an attack; and those
    that could not run, with the reason. answers: what each model gave, by option."""
    target = answers[option]
    given = _input(option, answers, list(frame["response"]))
    columns, left_out = {}, {}
    for name in names:
        if name in target.refused:
            left_out[name] = target.refused[name]
        elif missing := ATTACKS[name].needs.missing(given):
            left_out[name] = "needs " + " and ".join(dict.fromkeys(_REMEDIES.get(m, m) for m in missing))
        else:
            try:
                columns[name] = ATTACKS[name].score(given)
            except KdleakError as error:
                left_out[name] = str(error)
    return frame[list(KEYS)].assign(**columns), left_out


def placebo(answers: Mapping[str, Answer], frame: pd.DataFrame) -> dict[str, Any]:
    """The teacher-aware attack on models that never met the teacher: where it succeeds, it hears the teacher itself."""
    given = _input("student", answers, list(frame["response"]))
    scores = ATTACKS[TEACHER_AWARE].score(without_teacher(given))
    return placebo_control(scores, (frame["role"] == MEMBER).to_numpy())


def _input(option: str, answers: Mapping[str, Answer], texts: Sequence[str]) -> AttackInput:
    target = answers[option]
    others = {ROLES[name]: answer for name, answer in answers.items() if name != option}
    populations = {name: answer.population for name, answer in {"target": target, **others}.items()}
    return AttackInput(
        target.statistics,
        {name: answer.statistics for name, answer in others.items()},
        texts=texts,
        argmax_texts=target.argmax_texts,
        variants=target.variants,
        population={name: found for name, found in populations.items() if found is not None},
        mope=target.mope,
    )


def membership_figures(
    scores: pd.DataFrame, beside: Mapping[str, pd.DataFrame], frame: pd.DataFrame, seed: int
) -> dict[str, Any]:
    """What membership.json holds of a model of the pipeline; `beside`: the same attacks on `teacher` and `no_kd`."""
    overlap = ngram_overlap(frame, _NGRAM, of=[NONMEMBER], against=[MEMBER])
    shares = dict(zip(frame["record_id"], overlap, strict=True))
    controls = {
        "blind": blind_control(frame, member_role=MEMBER, seed=seed),
        "permutation": permutation_control(scores, member_role=MEMBER, seed=seed),
        "overlap": {"ngram": _NGRAM, **overlap_control(scores, shares, member_role=MEMBER)},
    }
    report = membership_report(scores, controls=controls, **_SIDES)
    report["beside"] = {name: _areas(table) for name, table in beside.items()}
    if "no_kd" in beside:
        for attack, excess in paired_differences(scores, beside["no_kd"], **_SIDES).items():
            report["beside"]["no_kd"][attack]["excess"] = excess
    if "teacher" in beside:
        report["inherited"] = inherited(scores, beside["teacher"], **_SIDES)
        report["exposed_overlap"] = exposed_overlap(scores, beside["teacher"], member_role=MEMBER)
    return report


def _areas(scores: pd.DataFrame) -> dict[str, dict[str, Any]]:
    keep = ("auc", "auc_ci95", "p_value", "p_holm", "tpr_at_fpr")
    attacks = membership_report(scores, **_SIDES)["attacks"]
    return {name: {key: area[key] for key in keep} for name, area in attacks.items()}


def memorization_figures(answers: Mapping[str, Answer]) -> dict[str, Any] | None:
    """What memorization.json holds of a model of the pipeline, facts and canaries aside; None where not measured."""
    tables = {o: Memorization(a.memorization) for o, a in answers.items() if a.memorization is not None}
    if "student" not in tables:
        return None
    others = {"teacher": tables.get("teacher"), "no_kd": tables.get("baseline")}
    return {"tokens": CONTINUED, **memorization_report(tables["student"], **others, **_SIDES)}


def most_exposed(
    frame: pd.DataFrame, scores: pd.DataFrame, attack: str, memorization: pd.DataFrame | None
) -> list[dict[str, Any]]:
    """The members that `attack` is surest of, ids and numbers only.

    nonmembers_above: how many non-members score as high or higher, the false accusations that naming it would cost.
    reproduced: whether greedy decoding gives its first tokens back; None where that is not known.
    """
    table = scores[[*KEYS, attack]].assign(place=frame["place"], reproduced=np.nan)
    if memorization is not None:
        table["reproduced"] = memorization["reproduced"].to_numpy()
    table = table[table[attack].notna()]
    outside = np.sort(table.loc[table["role"] == NONMEMBER, attack].to_numpy())
    inside = table[table["role"] == MEMBER].sort_values([attack, "record_id"], ascending=[False, True])
    return [
        {
            "record_id": row["record_id"],
            "place": row["place"],
            "score": float(row[attack]),
            "nonmembers_above": int(len(outside) - np.searchsorted(outside, row[attack], side="left")),
            "reproduced": None if np.isnan(row["reproduced"]) else bool(row["reproduced"]),
        }
        for _, row in inside.head(_EXPOSED).iterrows()
    ]
