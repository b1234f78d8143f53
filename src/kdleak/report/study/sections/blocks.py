"""Where the leak is, by transformer block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.core.paths import TEACHER
from kdleak.render import charts
from kdleak.render.blocks import Absent, Chart, Table
from kdleak.render.charts import Estimate
from kdleak.render.palette import label
from kdleak.render.wording import p_value, with_interval
from kdleak.report.study.sections import Content, section

if TYPE_CHECKING:
    from kdleak.report.study.results import Study
    from kdleak.report.study.sections import Report


@section("By transformer block", order=60)
def by_block(report: Report) -> Content:
    """Block-wise MoPe: the exposure of the members when only one block is perturbed."""
    study = report.study
    names = study.with_("blocks")
    if not names:
        return Content([Absent("The blocks audit has not been run (`dvc repro -P`).")])
    students = [name for name in names if name != TEACHER]
    drawn = []
    for group in ([TEACHER] if TEACHER in names else [], students):
        if group:
            series = {name: _curve(study, name) for name in group}
            drawn.append(_figure(series, "the teacher" if group == [TEACHER] else "the students", study, group))
    rows = [_spread_row(study, name) for name in names]
    header = ("model", "most exposed", "least exposed", "difference of AUC", "corrected for the choice")
    null = "The grey line is the no-KD student: what a block shows of records that nobody taught it."
    return Content(
        [*drawn, Table(header, rows)],
        lead="How well members can be told when a single block's weights are perturbed (block-wise MoPe). " + null,
    )


def _figure(series: dict, whose: str, study: Study, names: list[str]) -> Chart:
    report = study.models[names[0]].blocks
    unit = "of a block's weights" if report["relative"] else "absolute"
    drawn = charts.curves(series, xlabel="block, from the bottom", ylabel="AUC", reference=0.5, integer_x=True)
    caption = (
        f"AUC when one block of {whose} is perturbed: σ = {report['sigma']:g} ({unit}), {report['n_perturbations']} "
        "draws; whiskers are 95 % intervals over records."
    )
    return Chart(drawn, caption)


def _curve(study: Study, name: str) -> tuple[list[int], list[Estimate]]:
    blocks = study.models[name].blocks["blocks"]
    return [block["index"] for block in blocks], [Estimate(block["auc"], block["auc_ci95"]) for block in blocks]


def _spread_row(study: Study, name: str) -> list[str]:
    spread = study.models[name].blocks["spread"]
    if spread is None:
        return [label(name), "–", "–", "one block", "–"]
    difference = with_interval(spread["difference"], spread["ci95"])
    return [label(name), str(spread["highest"]), str(spread["lowest"]), difference, p_value(spread["p_corrected"])]
