"""Technique by attack: the heatmap as the paper draws it, and the paper's own beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kdleak.attacks import is_auditors
from kdleak.core.paths import BASELINE, TEACHER
from kdleak.core.seeds import derive
from kdleak.render import charts
from kdleak.render.blocks import Absent, Block, Chart, Paragraph, SideBySide
from kdleak.render.wording import number, with_interval
from kdleak.report.study.published import agreement
from kdleak.report.study.results import PAPER_TECHNIQUES
from kdleak.report.study.sections import Content, section
from kdleak.stats.contrasts import leaks

if TYPE_CHECKING:
    from kdleak.report.study.published import Published
    from kdleak.report.study.results import Study
    from kdleak.report.study.sections import Report
    from kdleak.stats.contrasts import Leak

#: The best-known attacks' names end so where they are run as the study's code ran them.
PUBLISHED = "_published"
#: Marks an attack that only the auditor has.
AUDITORS = "†"


@section("Technique by attack", order=30)
def by_attack(report: Report) -> Content:
    """Every model by every attack."""
    study = report.study
    return Content(
        [
            Chart(
                heatmap_drawing(study),
                "AUC of every attack on every model; lighter leaks more. Intervals stand in membership.json."
                + _marked(study),
            ),
            *_beside_the_paper(study, report.published),
        ],
        lead=_lead(study, _own_attacks(study)),
    )


def heatmap_drawing(study: Study) -> str:
    """AUC of every attack, as its paper defines it, on every model: an `<svg>` element."""
    models, attacks = study.with_("membership"), _own_attacks(study)
    shown = [f"{attack} {AUDITORS}" if is_auditors(attack) else attack for attack in attacks]
    return charts.heatmap(models, shown, auc_matrix(study, models, attacks), width=charts.MATRIX)


def _marked(study: Study) -> str:
    return f" {AUDITORS} The auditor's own: no outsider has it." if any(map(is_auditors, _own_attacks(study))) else ""


def _own_attacks(study: Study) -> list[str]:
    """The attacks that were run, but for those as the study's code ran them."""
    models = study.with_("membership")
    run = [attack for attack in study.params.audit.attacks if any(study.auc(model, attack) for model in models)]
    return [attack for attack in run if not attack.endswith(PUBLISHED)]


def auc_matrix(study: Study, models: list[str], attacks: list[str]) -> np.ndarray:
    """(models, attacks); NaN where a model has no such figure."""
    found = [[(study.auc(model, attack) or {}).get("auc") for attack in attacks] for model in models]
    return np.array(found, dtype=np.float64).reshape(len(models), len(attacks))


def _lead(study: Study, attacks: list[str]) -> str:
    if not study.techniques:
        return ""
    attacks = [attack for attack in attacks if not is_auditors(attack)]
    on_all = [a for a in attacks if all((study.auc(name, a) or {}).get("auc") is not None for name in study.techniques)]
    if not on_all:
        return ""
    means = auc_matrix(study, study.techniques, on_all).mean(axis=0)
    best, worst = on_all[int(means.argmax())], on_all[int(means.argmin())]
    return (
        f"On average over the students {best} separates most (mean AUC {number(float(means.max()))}), "
        f"{worst} least ({number(float(means.min()))})."
    )


def _beside_the_paper(study: Study, published: Published) -> list[Block]:
    """The paper's part of the heatmap, ours beside theirs, and how far the two rank alike."""
    models = [n for n in (TEACHER, *PAPER_TECHNIQUES, BASELINE) if n in study.with_("membership")]
    attacks = [name for name in published.attacks if any(study.auc(model, name) for model in models)]
    if not attacks or len(models) < 2:
        return [Absent("Nothing to set beside the paper: none of its attacks was run.")]
    theirs = np.array([[published.auc(model, attack) for attack in attacks] for model in models])
    drawings = [
        charts.heatmap(models, attacks, values, title=title, width=charts.HALF)
        for title, values in (("this study", auc_matrix(study, models, attacks)), ("the paper", theirs))
    ]
    captions = (
        f"{study.params.model.family}, student {study.params.model.student}.",
        f"{published.family}, student {published.size} ({published.reason}).",
    )
    shown = SideBySide(*(Chart(d, c) for d, c in zip(drawings, captions, strict=True)))
    found = agreement(_cells(study, models, attacks), published, derive(study.params.seed, "agreement"))
    text = (
        f"Spearman's rank correlation over the {found.cells} cells of the students: "
        f"{with_interval(found.value, (found.low, found.high), 2)}; the interval is the uncertainty of our AUCs alone. "
        f"Source of the paper's figures: {published.source}"
    )
    return [shown, Paragraph(text)]


def _cells(study: Study, models: list[str], attacks: list[str]) -> dict[tuple[str, str], Leak]:
    """(student, attack) -> its leak, on the records that every student and attack defines."""
    tables = study.grouped({n: t for n in models if n != TEACHER and (t := study.models[n].scores) is not None})
    attacks = [attack for attack in attacks if all(attack in table for table in tables.values())]
    complete = None
    for table in tables.values():
        defined = set(table.loc[np.isfinite(table[attacks]).all(axis=1), "record_id"])
        complete = defined if complete is None else complete & defined
    kept = {name: table[table["record_id"].isin(complete or ())] for name, table in tables.items()}
    found = {attack: leaks(kept, attack) for attack in attacks}
    return {(name, attack): leak for attack in attacks for name, leak in found[attack].items()}
