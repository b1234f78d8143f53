"""Where the leak is, by task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.core.paths import BASELINE, TEACHER
from kdleak.render import charts
from kdleak.render.blocks import Absent, Chart
from kdleak.render.wording import number, task_name
from kdleak.report.study.results import PAPER_TECHNIQUES
from kdleak.report.study.sections import Content, section
from kdleak.report.study.sections.headline import estimate

if TYPE_CHECKING:
    from kdleak.report.study.sections import Report


@section("By task", order=50)
def by_task(report: Report) -> Content:
    """AUC of the headline attack on the records of each task."""
    study = report.study
    names = [n for n in (TEACHER, *PAPER_TECHNIQUES, BASELINE) if n in study.with_("membership")]
    reports = {name: study.models[name].membership["tasks"] for name in names}
    tasks = sorted({task for report in reports.values() for task in report})
    if len(tasks) < 2:
        return Content([Absent("The records have one task only.")])
    students = [name for name in names if name not in (TEACHER, BASELINE)] or names
    means = {task: _mean([reports[n].get(task, {}).get(study.attack) for n in students]) for task in tasks}
    order = sorted(tasks, key=lambda task: -means[task])
    series = {n: [estimate(reports[n].get(task, {}).get(study.attack)) for task in order] for n in names}
    drawn = charts.dots(order, series, xlabel=f"AUC of {study.attack}", reference=0.5, group_label=task_name)
    lead = (
        f"Records of {task_name(order[0])} leak most (mean AUC of the students {number(means[order[0]])}), "
        f"those of {task_name(order[-1])} least ({number(means[order[-1]])})."
    )
    caption = f"AUC of {study.attack} within each task, with 95 % intervals; a task has few records, so they are wide."
    return Content([Chart(drawn, caption)], lead=lead)


def _mean(found: list) -> float:
    values = [figures["auc"] for figures in found if figures and figures["auc"] is not None]
    return sum(values) / len(values) if values else float("-inf")
