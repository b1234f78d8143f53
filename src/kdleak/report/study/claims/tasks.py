"""The paper's claim 5: which tasks leak most, by what a student shows above the no-KD student on the same records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import chdtrc  # scipy.stats takes longer to import than this to compute

from kdleak.core.paths import BASELINE
from kdleak.render.wording import listed, number, signed, task_name
from kdleak.report.study.claims import claim
from kdleak.report.study.claims.membership import mean_of, tables_of, themselves
from kdleak.report.study.findings import (
    JUDGES,
    METRICS,
    Compared,
    Finding,
    View,
    Views,
    attacks_of,
    detectable,
    judged,
    not_measured,
    over_trainings,
    runs_of,
    tested_by,
    together,
)
from kdleak.stats.contrasts import Contrast, Leak, leaks
from kdleak.stats.trainings import MeanLeak, Spread

if TYPE_CHECKING:
    from kdleak.report.study.results import Study

#: The tasks that the claim's sentence names.
MOST_TASKS = ("creative_writing", "general_qa", "brainstorming")
LEAST_TASKS = ("classification", "summarization", "closed_qa")
SAYS = "Creative writing, general QA and brainstorming leak most; classification, summarization and closed QA least."
TEST = (
    "excess over the no-KD student, mean over the tasks named first less mean over those named last, mean over "
    "techniques; tasks independent"
)


@claim("5")
def tasks_differ(study: Study) -> Finding:
    """5. Tasks differ: those of MOST_TASKS leak most, those of LEAST_TASKS least."""
    own, caveat = themselves(study, study.claimed)
    views = _excess_by_task(study, own)
    tasks = list(next(iter(views.values()), {}))
    most, least = ([task for task in named if task in tasks] for named in (MOST_TASKS, LEAST_TASKS))
    if not most or not least:
        return not_measured("5", SAYS, TEST, "Needs the no-KD student, and the tasks that the claim names.")
    contrasts = {view: _contrast(by_task, most, least) for view, by_task in views.items()}
    compared = judged(list(contrasts.values()), list(contrasts))
    missing = [task_name(task) for task in (*MOST_TASKS, *LEAST_TASKS) if task not in tasks]
    conditional_on = [f"the tasks that these data have: no {listed(missing)}"] if missing else []
    first, by_task = next(iter(views.items()))
    heterogeneity, p = _heterogeneity(list(by_task.values()))
    figures = {"excess_auc": {task: leak.value for task, leak in by_task.items()}}
    figures |= {"heterogeneity": heterogeneity, "heterogeneity_p": p}
    answer = f"{_above(most, least, compared)} Excess by {first.attack} from most to least: {_ranked(by_task)}."
    return Finding(
        "5", SAYS, together(compared), f"{TEST}; {tested_by(views, compared)}", answer, compared, figures,
        detectable(compared), caveat, conditional_on, attacks_of(views), runs_of(compared),
    )  # fmt: skip


def _above(most: Sequence[str], least: Sequence[str], compared: Sequence[Compared]) -> str:
    """How far the tasks of `most` lie above those of `least`, by every view."""
    names = [listed([task_name(task) for task in tasks]) for tasks in (most, least)]
    shown = ", ".join(f"{signed(c.contrast.value)} by {c.view.attack}" for c in compared if c.view is not None)
    return f"{names[0][:1].upper()}{names[0][1:]} above {names[1]}: {shown}."


def _ranked(by_task: Mapping[str, Leak | MeanLeak]) -> str:
    order = sorted(by_task, key=lambda task: -by_task[task].value)
    return listed([f"{task_name(task)} {number(by_task[task].value, 2)}" for task in order])


def _contrast(by_task: Mapping[str, Leak | MeanLeak], most: Sequence[str], least: Sequence[str]) -> Contrast:
    """The mean over `most` less that over `least`: tasks share trainings and no records."""
    name, weights = "most-leaking tasks over least-leaking", dict.fromkeys(most, 1 / len(most))
    weights |= dict.fromkeys(least, -1 / len(least))
    leaks_of = {task: by_task[task] for task in weights}
    n = sum(leak.n for leak in leaks_of.values())
    means = {task: leak for task, leak in leaks_of.items() if isinstance(leak, MeanLeak)}
    seeds = set.intersection(*(set(leak.by_seed) for leak in means.values())) if means else set()
    if len(seeds) > 1:
        values = [sum(w * means[task].by_seed[seed].value for task, w in weights.items()) for seed in seeds]
        spread = Spread.of(values, sum(w**2 * means[task].shared for task, w in weights.items()))
        return Contrast.over(name, spread, n)
    value = sum(w * leaks_of[task].value for task, w in weights.items())
    return Contrast(name, value, float(np.sqrt(sum((w * leaks_of[task].error) ** 2 for task, w in weights.items()))), n)


def _excess_by_task(study: Study, names: Sequence[str]) -> Views:
    """View -> task -> its excess over the no-KD student, the mean over techniques; tasks with too few records for an
    error are left out, and so are views that do not have every other task."""
    tables = tables_of(study, [*names, BASELINE])
    tasks = sorted(set().union(*(table["task"] for table in tables.values())))
    views: dict[View, dict[str, Leak | MeanLeak]] = {}
    for attack in JUDGES:
        for metric, measure in METRICS.items():
            of_view: dict[str, Leak | MeanLeak] = {}
            for task in tasks:
                of_task = {run: table[table["task"] == task] for run, table in tables.items()}
                areas = over_trainings(leaks(of_task, attack, measure))
                baseline = areas.pop(BASELINE, None)
                if isinstance(baseline, Leak) and areas and min(len(baseline.members), len(baseline.nonmembers)) > 1:
                    students: list[Any] = list(areas.values())
                    excess = mean_of(students) - baseline
                    if excess.error > 0:  # perfect order on both sides has no error to weigh by
                        of_view[task] = excess
            if of_view:
                views[View(attack, metric)] = of_view
    widest = set().union(*views.values()) if views else set()
    return {view: by_task for view, by_task in views.items() if set(by_task) == widest}


def _heterogeneity(areas: Sequence[Leak | MeanLeak]) -> tuple[float, float]:
    """Cochran's Q over independent estimates, and its p-value."""
    weights, values = np.array([1 / leak.error**2 for leak in areas]), np.array([leak.value for leak in areas])
    q = float(weights @ (values - weights @ values / weights.sum()) ** 2)
    return q, float(chdtrc(len(areas) - 1, q))
