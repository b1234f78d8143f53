"""The paper's claims 1 to 5, on membership, each as a test on this study's records.

Every function takes the study and gives a Finding. Tests are two-sided at 5 %, Holm-corrected within a claim; AUCs are
compared by paired DeLong on the same records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import chdtrc  # scipy.stats takes longer to import than this to compute

from kdleak.core.paths import BASELINE
from kdleak.render.palette import label
from kdleak.render.wording import listed, number, p_value, signed, task_name
from kdleak.report.study.claims import claim
from kdleak.report.study.findings import (
    CONTRADICTED,
    REPRODUCED,
    Finding,
    detectable,
    judged,
    not_measured,
    together,
)
from kdleak.stats.contrasts import Contrast, Leak, leaks

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.report.study.results import Study

MOST, LEAST = ("seqkd", "imitkd", "kd"), "minillm"
MOST_TASKS = ("creative_writing", "open_qa", "general_qa", "brainstorming")
LEAST_TASKS = ("classification", "summarization", "closed_qa")


@claim("1")
def every_technique_leaks(study: Study) -> Finding:
    """1. By its best attack each student lies above the No-KD student."""
    says = "Every technique leaks: each student's best AUC is above the No-KD student's."
    tables = tables_of(study, [*study.claimed, BASELINE])
    if BASELINE not in tables or len(tables) < 2:
        return not_measured("1", says, _paired("every attack"), "No student beside No-KD yet.")
    owners, contrasts = [], []
    for attack in study.params.audit.attacks:
        areas = leaks(tables, attack)
        for name in (n for n in areas if n != BASELINE and BASELINE in areas):
            owners.append(name)
            contrasts.append(Contrast.of(f"{label(name)} over no KD by {attack}", areas[name] - areas[BASELINE]))
    every = judged(contrasts)
    best = []
    for name in dict.fromkeys(owners):
        of_technique = [c for owner, c in zip(owners, every, strict=True) if owner == name]
        best.append(max(of_technique, key=lambda c: (c.verdict == REPRODUCED, c.contrast.value)))
    verdict = together(best)
    leaking = [c for c in best if c.verdict == REPRODUCED]
    answer = f"{len(leaking)} of {len(best)} techniques leak more than no KD by their best attack."
    if verdict == REPRODUCED:
        least = min(best, key=lambda c: c.contrast.value)
        answer += f" The least by {signed(least.contrast.value)} ({least.contrast.name})."
    test = _paired("the attack that shows most", len(every)) + " (every technique by every attack)"
    return Finding("1", says, verdict, test, answer, best, detectable=detectable(best, len(every)))


@claim("2")
def techniques_differ(study: Study) -> Finding:
    """2. SeqKD, ImitKD and KD leak most, MiniLLM least."""
    areas = leaks(tables_of(study, study.claimed), study.attack)
    return ranking("2", "SeqKD, ImitKD and KD leak most, MiniLLM least.", areas, study.attack)


def ranking(claim: str, says: str, areas: Mapping[str, Leak], attack: str, caveat: str = "") -> Finding:
    """Whether the leaks have the paper's order: MOST above the others, LEAST below them."""
    top, middle = [n for n in MOST if n in areas], [n for n in ("gkd", "distillm") if n in areas]
    low = [LEAST] if LEAST in areas else []
    pairs = [(a, b) for a in top for b in [*middle, *low]] + [(a, b) for a in middle for b in low]
    if not pairs:
        return not_measured(claim, says, _paired(attack), "The techniques have not been run.")
    compared = judged([difference(areas, a, b) for a, b in pairs])
    order = sorted(areas, key=lambda name: -areas[name].value)
    borne_out = sum(c.verdict == REPRODUCED for c in compared)
    answer = f"From most to least: {', '.join(label(n) for n in order)}. "
    answer += f"{borne_out} of {len(compared)} pairs are significantly as claimed."
    wrong = [c for c in compared if c.verdict == CONTRADICTED]
    if wrong:
        worst = min(wrong, key=lambda c: c.contrast.value)
        answer += f" Reversed in {len(wrong)} of {len(compared)} pairs, most in {worst.contrast.name} "
        answer += f"({signed(worst.contrast.value)})."
    return Finding(
        claim, says, together(compared), _paired(attack, len(compared)), answer, compared,
        {"auc": {name: leak.value for name, leak in areas.items()}}, detectable(compared), caveat,
    )  # fmt: skip


@claim("3")
def objective_matters(study: Study) -> Finding:
    """3. Reverse KL leaks less than forward KL."""
    areas = leaks(tables_of(study, [n for n in ("kd", "rkl") if n in study.techniques]), study.attack)
    return reverse_below_forward("3", "Reverse KL leaks less than forward KL.", areas, study.attack)


def reverse_below_forward(claim: str, says: str, areas: Mapping[str, Leak], attack: str) -> Finding:
    """The two objectives alone, on the same data from the same start."""
    if not {"kd", "rkl"} <= set(areas):
        reason = "Needs both `kd` (forward KL) and `rkl` (reverse KL) on the same data."
        return not_measured(claim, says, _paired(attack), reason)
    compared = judged([difference(areas, "kd", "rkl")])
    contrast = compared[0].contrast
    more = "more" if contrast.value > 0 else "less"
    answer = f"Forward KL leaks {number(abs(contrast.value))} {more} than reverse KL ({p_value(contrast.p_value)})."
    test = _paired(attack)
    return Finding(claim, says, together(compared), test, answer, compared, detectable=detectable(compared))


@claim("4")
def student_text_raises_risk(study: Study) -> Finding:
    """4. More student-generated data, more leak: the same divergence with and without it."""
    says = "More student-generated data raises the risk."
    areas = leaks(tables_of(study, [n for n in ("kd", "imitkd", "jsd", "gkd") if n in study.techniques]), study.attack)
    pairs = [(a, b) for a, b in (("imitkd", "kd"), ("gkd", "jsd")) if a in areas and b in areas]
    if not pairs:
        reason = "Needs `imitkd` beside `kd`, or `gkd` beside `jsd`."
        return not_measured("4", says, _paired(study.attack), reason)
    compared = judged([difference(areas, a, b) for a, b in pairs])
    answer = "; ".join(f"{c.contrast.name} {signed(c.contrast.value)} ({p_value(c.p_holm)})" for c in compared) + "."
    caveat = (
        "Techniques that learn from their own words also start from the No-KD student, and ImitKD adds an LM loss. "
        "`dvc exp run -S kd.student_fraction=0,0.5,1 --queue` varies the data alone."
    )
    test = _paired(study.attack, len(compared)) + ": one divergence with and without student text"
    smallest = detectable(compared)
    return Finding("4", says, together(compared), test, answer, compared, detectable=smallest, caveat=caveat)


@claim("5")
def tasks_differ(study: Study) -> Finding:
    """5. Tasks differ: those of MOST_TASKS leak most, those of LEAST_TASKS least."""
    says = (
        "Creative writing, general QA and brainstorming leak most; classification, summarization and closed QA least."
    )
    by_task = _leaks_by_task(study)
    most, least = ([t for t in kinds if t in by_task] for kinds in (MOST_TASKS, LEAST_TASKS))
    test = "mean AUC of the first three tasks against the last three, mean over techniques; DeLong, tasks independent"
    if not most or not least:
        return not_measured("5", says, test, "The data do not have the tasks that the claim names.")
    sides = [(task, 1 / len(most)) for task in most] + [(task, -1 / len(least)) for task in least]
    contrast = Contrast(
        "most-leaking tasks over least-leaking",
        sum(weight * by_task[task].value for task, weight in sides),
        float(np.sqrt(sum((weight * by_task[task].error) ** 2 for task, weight in sides))),
        sum(by_task[task].n for task, _ in sides),
    )
    compared = judged([contrast])
    order = sorted(by_task, key=lambda task: -by_task[task].value)
    ranked = [f"{task_name(task)} {number(by_task[task].value, 2)}" for task in order]
    answer = f"The three lie {signed(contrast.value)} above the other three. From most to least: {listed(ranked)}."
    heterogeneity, p = _heterogeneity(list(by_task.values()))
    figures = {"auc": {task: leak.value for task, leak in by_task.items()}}
    figures |= {"heterogeneity": heterogeneity, "heterogeneity_p": p}
    return Finding("5", says, together(compared), test, answer, compared, figures, detectable(compared))


def _leaks_by_task(study: Study) -> dict[str, Leak]:
    """Task -> its AUC, the mean over techniques; tasks with too few records for an error are left out."""
    tables = tables_of(study, study.claimed)
    tasks = sorted(set().union(*(table["task"] for table in tables.values())))
    areas = {}
    for task in tasks:
        of_task = leaks({name: table[table["task"] == task] for name, table in tables.items()}, study.attack)
        if of_task and min(min(len(leak.members), len(leak.nonmembers)) for leak in of_task.values()) > 1:
            areas[task] = mean_of(list(of_task.values()))
    return areas


def _heterogeneity(areas: Sequence[Leak]) -> tuple[float, float]:
    """Cochran's Q over independent AUCs, and its p-value."""
    weights, values = np.array([1 / leak.error**2 for leak in areas]), np.array([leak.value for leak in areas])
    q = float(weights @ (values - weights @ values / weights.sum()) ** 2)
    return q, float(chdtrc(len(areas) - 1, q))


def mean_of(areas: Sequence[Leak]) -> Leak:
    """The mean of several models' leaks."""
    total = areas[0]
    for leak in areas[1:]:
        total = total + leak
    return total * (1 / len(areas))


def _paired(attack: str, comparisons: int = 1) -> str:
    holm = f", Holm-corrected over {comparisons} comparisons" if comparisons > 1 else ""
    return f"paired DeLong by {attack}, two-sided at 5 %{holm}"


def tables_of(study: Study, names: Sequence[str]) -> dict[str, pd.DataFrame]:
    return {name: study.models[name].scores for name in names if study.models[name].scores is not None}


def difference(areas: Mapping[str, Leak], first: str, second: str) -> Contrast:
    return Contrast.of(f"{label(first)} over {label(second)}", areas[first] - areas[second])
