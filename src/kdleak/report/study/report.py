"""The study's report: every result in one page, and the findings and the tables as files for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.core.files import replacing_file, write_csv, write_json
from kdleak.models.families import load_family
from kdleak.render.blocks import Bullets, Callout
from kdleak.render.page import Page, Section
from kdleak.render.palette import label
from kdleak.render.svg import by_itself
from kdleak.render.wording import listed
from kdleak.report.study.claims import findings_of
from kdleak.report.study.published import closest
from kdleak.report.study.results import read_study
from kdleak.report.study.sections import Report, sections
from kdleak.report.study.sections.attacks import heatmap_drawing
from kdleak.report.study.tables import attacks_table, models_table

if TYPE_CHECKING:
    from kdleak.config.schema import Params
    from kdleak.core.paths import Project

TITLE = "What distillation leaks"
_FOOTER = "Ids and numbers only: no record's text stands in this file. Made by kdleak report."


def write_report(params: Params, project: Project) -> None:
    """Write results/report.html, findings.json, comparisons.json, attacks.csv, models.csv and heatmap.svg from the
    result files that there are.

    Equal results are equal files. KdleakError where no model has been attacked.
    """
    study = read_study(params, project)
    findings = findings_of(study)
    published = closest(load_family(project.families, params.model.family), params.model.family, params.model.student)
    records = [finding.record() for finding in findings]
    tests = {record["claim"]: record.pop("comparisons") for record in records}
    write_json({"findings": records}, project.findings, digits=6)
    write_json(tests, project.comparisons, digits=6)
    write_csv(attacks_table(study), project.attacks_table)
    write_csv(models_table(study), project.models_table)
    with replacing_file(project.heatmap_figure) as fresh:
        fresh.write_text(by_itself(heatmap_drawing(study)), encoding="utf-8")
    with replacing_file(project.report) as fresh:
        fresh.write_text(study_page(Report(study, findings, published)), encoding="utf-8")


def study_page(report: Report) -> str:
    """The report as HTML: what the sections say, and above it their alarms, then their gists."""
    contents = {each.title: each.content(report) for each in sections()}
    alarms = [Callout(content.alarm, "bad") for content in contents.values() if content.alarm]
    gists = Callout(Bullets([content.gist for content in contents.values() if content.gist]))
    study = report.study
    sizes = study.params.data.sizes
    subtitle = (
        f"{listed([label(name) for name in study.techniques]) or 'A teacher'} on {study.params.model.family}, "
        f"{sizes.private} members and {sizes.heldout} non-members; after Zhang et al., EMNLP 2025."
    )
    parts = [Section(title, content.blocks, content.lead) for title, content in contents.items()]
    return Page(TITLE, parts, subtitle, [*alarms, gists], _FOOTER).html()
