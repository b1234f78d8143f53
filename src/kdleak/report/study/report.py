"""The study's report: every result in one page, and the findings and the heatmap as files for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.core.files import replacing_file, write_csv, write_json
from kdleak.models.families import load_family
from kdleak.render.page import Html, bullets, callout, page
from kdleak.render.palette import label
from kdleak.render.svg import by_itself
from kdleak.render.wording import listed
from kdleak.report.study.claims import findings_of
from kdleak.report.study.published import closest
from kdleak.report.study.results import Study, read_study
from kdleak.report.study.sections import memorization
from kdleak.report.study.sections.attacks import by_attack, heatmap_drawing, roc_curves
from kdleak.report.study.sections.checks import controls, corrected_against_published
from kdleak.report.study.sections.claims import tally, the_claims
from kdleak.report.study.sections.disagreement import two_measures
from kdleak.report.study.sections.headline import gist, what_leaked
from kdleak.report.study.sections.records import by_block, by_task
from kdleak.report.study.sections.run import what_was_run
from kdleak.report.study.sections.utility import worth_against_leak

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project
    from kdleak.report.study.findings import Finding
    from kdleak.report.study.published import Published

TITLE = "What distillation leaks"
_FOOTER = "Ids and numbers only: no record's text stands in this file. Made by kdleak report."


def write_report(params: Params, project: Project) -> None:
    """Write results/report.html, findings.json, heatmap.csv and heatmap.svg from the result files that there are.

    Equal results are equal files, but for the report's seconds. KdleakError where no model has been attacked.
    """
    study = read_study(params, project)
    findings = findings_of(study)
    published = closest(load_family(project.families, params.model.family), params.model.family, params.model.student)
    write_json({"findings": [finding.record() for finding in findings]}, project.findings, digits=6)
    write_csv(heatmap_table(study), project.heatmap)
    with replacing_file(project.heatmap_figure) as fresh:
        fresh.write_text(by_itself(heatmap_drawing(study)), encoding="utf-8")
    with replacing_file(project.report) as fresh:
        fresh.write_text(study_page(study, findings, published), encoding="utf-8")


def study_page(study: Study, findings: Sequence[Finding], published: Published) -> str:
    """The report as HTML."""
    sections = [
        what_leaked(study),
        the_claims(findings),
        by_attack(study, published),
        roc_curves(study),
        by_task(study),
        by_block(study),
        memorization.what_is_said(study),
        memorization.what_is_inherited(study),
        two_measures(study, next(f for f in findings if f.claim == "6")),
        worth_against_leak(study),
        corrected_against_published(study),
        controls(study),
        what_was_run(study),
    ]
    sizes = study.params.data.sizes
    subtitle = (
        f"{listed([label(name) for name in study.techniques]) or 'A teacher'} on {study.params.model.family}, "
        f"{sizes.private} members and {sizes.heldout} non-members; after Zhang et al., EMNLP 2025."
    )
    return page(TITLE, sections, subtitle=subtitle, summary=summary(study, findings), footer=_FOOTER)


def summary(study: Study, findings: Sequence[Finding]) -> list[Html]:
    """What a reader in a hurry should know."""
    said = [gist(study), f"Of the paper's seven claims {tally(findings)}."]
    if study.with_("memorization", study.techniques):
        said.insert(1, memorization.gist(study))
    blind = [m.membership["controls"].get("blind") for m in study.models.values() if m.membership]
    broken = [control["verdict"] for control in blind if control and not control["passed"]]
    warning = [callout(f"{broken[0]} No figure below can be read as a leak of a model.", "bad")] if broken else []
    return [*warning, callout(bullets(said))]


def heatmap_table(study: Study) -> pd.DataFrame:
    """Columns method, attack, auc, auc_low, auc_high: a row for each model and attack."""
    import pandas as pd

    rows = [
        {"method": name, "attack": attack, "auc": figures["auc"],
         "auc_low": figures["auc_ci95"][0], "auc_high": figures["auc_ci95"][1]}
        for name in study.with_("membership")
        for attack, figures in study.models[name].membership["attacks"].items()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["method", "attack", "auc", "auc_low", "auc_high"])
