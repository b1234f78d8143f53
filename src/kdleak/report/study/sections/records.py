"""Where the leak is: by task, and by transformer block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.core.paths import BASELINE, TEACHER
from kdleak.render import charts
from kdleak.render.charts import Estimate
from kdleak.render.page import Section, absent, figure, table
from kdleak.render.palette import label
from kdleak.render.wording import number, p_value, task_name, with_interval
from kdleak.report.study.results import PAPER_TECHNIQUES
from kdleak.report.study.sections.headline import estimate

if TYPE_CHECKING:
    from kdleak.report.study.results import Study


def by_task(study: Study) -> Section:
    """AUC of the headline attack on the records of each task."""
    names = [n for n in (TEACHER, *PAPER_TECHNIQUES, BASELINE) if n in study.with_("membership")]
    reports = {name: study.models[name].membership["tasks"] for name in names}
    tasks = sorted({task for report in reports.values() for task in report})
    title = "By task"
    if len(tasks) < 2:
        return Section(title, [absent("The records have one task only.")])
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
    return Section(title, [figure(drawn, caption)], lead=lead)


def by_block(study: Study) -> Section:
    """Block-wise MoPe: the exposure of the members when only one block is disturbed."""
    names = study.with_("blocks")
    title = "By transformer block"
    if not names:
        return Section(title, [absent("The blocks audit has not been run (`dvc repro -P`).")])
    students = [name for name in names if name != TEACHER]
    drawn = []
    for group in ([TEACHER] if TEACHER in names else [], students):
        if group:
            series = {name: _curve(study, name) for name in group}
            drawn.append(_figure(series, "the teacher" if group == [TEACHER] else "the students", study, group))
    rows = [_spread_row(study, name) for name in names]
    header = ("model", "most exposed", "least exposed", "difference of AUC", "corrected for the choice")
    null = "The grey line is the student without KD: what a block shows of records that nobody taught it."
    return Section(
        title,
        [*drawn, table(header, rows)],
        lead="How well members can be told when a single block's weights are disturbed (block-wise MoPe). " + null,
    )


def _figure(series: dict, whose: str, study: Study, names: list[str]) -> str:
    report = study.models[names[0]].blocks
    unit = "of a block's weights" if report["relative"] else "absolute"
    drawn = charts.curves(series, xlabel="block, from the bottom", ylabel="AUC", reference=0.5, integer_x=True)
    caption = (
        f"AUC when one block of {whose} is disturbed: σ = {report['sigma']:g} ({unit}), {report['n_perturbations']} "
        "draws; whiskers are 95 % intervals over records."
    )
    return figure(drawn, caption)


def _curve(study: Study, name: str) -> tuple[list[int], list[Estimate]]:
    blocks = study.models[name].blocks["blocks"]
    return [block["index"] for block in blocks], [Estimate(block["auc"], block["auc_ci95"]) for block in blocks]


def _spread_row(study: Study, name: str) -> list[str]:
    spread = study.models[name].blocks["spread"]
    if spread is None:
        return [label(name), "–", "–", "one block", "–"]
    difference = with_interval(spread["difference"], spread["ci95"])
    return [label(name), str(spread["highest"]), str(spread["lowest"]), difference, p_value(spread["p_corrected"])]


def _mean(found: list) -> float:
    values = [figures["auc"] for figures in found if figures and figures["auc"] is not None]
    return sum(values) / len(values) if values else float("-inf")
