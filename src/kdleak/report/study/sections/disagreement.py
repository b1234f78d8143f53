"""Do membership and memorization tell the same story, about techniques and about records?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.core.paths import BASELINE
from kdleak.core.seeds import derive
from kdleak.render import charts
from kdleak.render.blocks import Absent, Block, Chart, Paragraph, Table
from kdleak.render.charts import Estimate
from kdleak.render.palette import label
from kdleak.render.wording import percent, with_interval
from kdleak.report.study.claims.memorization import paired_tables
from kdleak.report.study.sections import Content, section
from kdleak.report.study.sections.headline import estimate
from kdleak.stats.correlation import jaccard_at_top, record_correlation

if TYPE_CHECKING:
    from kdleak.report.study.results import Study
    from kdleak.report.study.sections import Report

#: The share of the members that counts as most exposed.
TOP = 0.1


@section("Two measures, two stories", order=90)
def two_measures(report: Report) -> Content:
    """A point a technique, membership against memorization; then how far they agree on single members."""
    study = report.study
    names = study.with_("memorization", study.techniques)
    if not names:
        return Content([Absent("Needs the memorization audit of the students (`dvc repro -P`).")])
    points = {}
    for name in [*study.with_("memorization", [BASELINE]), *names]:
        accuracy = study.models[name].memorization["token_accuracy"]
        points[name] = (estimate(study.auc(name)), Estimate(accuracy["gap"], accuracy["gap_ci95"]))
    drawn = charts.scatter(
        points, xlabel=f"membership: AUC of {study.attack}", ylabel="memorization: gap of token accuracy",
        x_reference=0.5, y_reference=0.0, width=charts.WIDE,
    )  # fmt: skip
    caption = (
        "Up and right leaks more. If both told one story the techniques would lie on a rising line: a technique that "
    )
    caption += "hides who was a member may still repeat the members' words, and the other way round."
    answer = next((finding.answer for finding in report.findings if finding.claim == "6"), "")
    return Content([Chart(drawn, caption), *_on_records(study)], answer)


def _on_records(study: Study) -> list[Block]:
    tables = paired_tables(study, study.techniques, study.attack)
    rows = []
    for name, frame in tables.items():
        members = frame[frame["role"] == "private"]
        a, b = members["membership"].to_numpy(), members["memorization"].to_numpy()
        groups = members["group_id"].astype(str).to_numpy()
        correlation = record_correlation(a, b, derive(study.params.seed, f"records/{name}"), draws=500, groups=groups)
        overlap = jaccard_at_top(a, b, TOP)
        rows.append(
            [label(name), with_interval(correlation.value, (correlation.low, correlation.high), 2), percent(overlap, 0)]
        )
    header = ("technique", "rank correlation over members", f"overlap of the {100 * TOP:g} % most exposed")
    note = f"Overlap: of the members that either measure counts among its top {100 * TOP:g} %, the share that both do; "
    return [Table(header, rows), Paragraph(f"{note}chance is about {percent(TOP / (2 - TOP), 0)}.")] if rows else []
