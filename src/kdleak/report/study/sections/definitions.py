"""Attacks and memorization as their papers define them, beside what the study's code computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.render.blocks import Absent, Code, Heading, Paragraph, Table
from kdleak.render.palette import label
from kdleak.render.wording import with_interval
from kdleak.report.study.sections import Content, section
from kdleak.report.study.sections.attacks import PUBLISHED

if TYPE_CHECKING:
    from kdleak.report.study.results import Study
    from kdleak.report.study.sections import Report


@section("Corrected against as published", order=110)
def corrected_against_published(report: Report) -> Content:
    """The attacks and the memorization figure as their papers define them, beside what the study's code computed."""
    study = report.study
    attacks = [a.removesuffix(PUBLISHED) for a in study.params.audit.attacks if a.endswith(PUBLISHED)]
    names = study.with_("membership")
    attacks = [a for a in attacks if any(study.auc(n, a) and study.auc(n, a + PUBLISHED) for n in names)]
    blocks: list[object] = []
    if attacks:
        header = ["model"] + [text for a in attacks for text in (a, f"{a}, as published")]
        rows = [[label(n), *(_auc(study, n, x) for a in attacks for x in (a, a + PUBLISHED))] for n in names]
        blocks.append(Table(header, rows, "AUC [95 % interval]"))
        lead = f"{_changed(study, attacks)} attack figures change materially (by more than .02) with the definition."
    else:
        blocks.append(Absent("No attack of audit.attacks was run in both definitions."))
        lead = ""
    memorized = study.with_("memorization")
    if memorized:
        header = ("model", "gap, corrected", "gap, as published")
        reports = {n: study.models[n].memorization for n in memorized}
        rows = [
            [label(n), *(with_interval(r[k]["gap"], r[k]["gap_ci95"], sign=True) for k in
             ("token_accuracy", "token_accuracy_as_published"))]
            for n, r in reports.items()
        ]  # fmt: skip
        blocks += [Heading("Memorization"), Table(header, rows)]
        note = "As published: no 6-gram may be repeated, padding counts as a miss. The gap keeps its sign in both."
        blocks.append(Paragraph(note))
    protocol = study.params.kd.protocol
    blocks.append(Paragraph("The students were trained by the ", Code(protocol), " protocol."))
    return Content(blocks, lead=lead)


def _changed(study: Study, attacks: list[str]) -> str:
    pairs = [(study.auc(n, a), study.auc(n, a + PUBLISHED)) for n in study.with_("membership") for a in attacks]
    known = [(x["auc"], y["auc"]) for x, y in pairs if x and y and None not in (x["auc"], y["auc"])]
    return f"{sum(abs(x - y) > 0.02 for x, y in known)} of {len(known)}"


def _auc(study: Study, name: str, attack: str) -> str:
    figures = study.auc(name, attack)
    return with_interval(figures["auc"], figures["auc_ci95"]) if figures else ""
