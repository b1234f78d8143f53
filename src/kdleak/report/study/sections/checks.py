"""Why to believe it: definitions corrected against as published, and controls that must fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.core.paths import BASELINE
from kdleak.render.page import Html, Section, absent, callout, code, heading, paragraph, table, verdict
from kdleak.render.palette import label
from kdleak.render.wording import number, p_value, with_interval
from kdleak.report.study.sections.attacks import PUBLISHED

if TYPE_CHECKING:
    from kdleak.report.study.results import Study


def corrected_against_published(study: Study) -> Section:
    """The attacks and the memorization figure as their papers define them, beside what the study's code computed."""
    title = "Corrected against as published"
    attacks = [a.removesuffix(PUBLISHED) for a in study.params.audit.attacks if a.endswith(PUBLISHED)]
    names = study.with_("membership")
    attacks = [a for a in attacks if any(study.auc(n, a) and study.auc(n, a + PUBLISHED) for n in names)]
    blocks: list[Html] = []
    if attacks:
        header = ["model"] + [text for a in attacks for text in (a, f"{a}, as published")]
        rows = [[label(n), *(_auc(study, n, x) for a in attacks for x in (a, a + PUBLISHED))] for n in names]
        blocks.append(table(header, rows, "AUC [95 % interval]"))
        lead = f"{_changed(study, attacks)} attack figures change materially (by more than .02) with the definition."
    else:
        blocks.append(absent("No attack of audit.attacks was run in both definitions."))
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
        blocks += [heading("Memorization"), table(header, rows)]
        note = "As published: no 6-gram may be repeated, padding counts as a miss. The gap keeps its sign in both."
        blocks.append(paragraph(note))
    protocol = study.params.kd.protocol
    blocks.append(paragraph("The students were trained by the ", code(protocol), " protocol."))
    return Section(title, blocks, lead=lead)


def _changed(study: Study, attacks: list[str]) -> str:
    pairs = [(study.auc(n, a), study.auc(n, a + PUBLISHED)) for n in study.with_("membership") for a in attacks]
    known = [(x["auc"], y["auc"]) for x, y in pairs if x and y and None not in (x["auc"], y["auc"])]
    return f"{sum(abs(x - y) > 0.02 for x, y in known)} of {len(known)}"


def _auc(study: Study, name: str, attack: str) -> str:
    figures = study.auc(name, attack)
    return with_interval(figures["auc"], figures["auc_ci95"]) if figures else ""


def controls(study: Study) -> Section:
    """Attacks that must fail, and how often chance alone would do as well."""
    names = study.with_("membership")
    found = {name: study.models[name].membership["controls"] for name in names}
    blocks: list[Html] = []
    failed = [name for name, given in found.items() if "blind" in given and not given["blind"]["passed"]]
    blind = next((given["blind"] for given in found.values() if "blind" in given), None)
    if blind:
        shown = with_interval(blind["auc"], blind["auc_ci95"])
        said = f"A classifier that reads the text and never asks a model: AUC {shown}. {blind['verdict']}"
        blocks.append(callout(said, "bad" if failed else "good"))
    rows = [_row(study, name) for name in names if "permutation" in found[name]]
    header = (
        "model",
        "best attack's AUC",
        "95 % of relabellings stay below",
        "as good by chance",
        "overlapping non-members",
    )
    if rows:
        blocks.append(table(header, rows))
        n = max(found[name]["permutation"]["n_permutations"] for name in names if "permutation" in found[name])
        words = f"The best attack of each model against the best of {n} random relabellings of the same records: the "
        words += "correction for having looked at several attacks. Overlapping: non-members that share a 13-gram with "
        blocks.append(paragraph(f"{words}a member; they would make attacks look worse than they are."))
    if study.gate:
        kind = "good" if study.gate.get("success") else "bad"
        state = verdict("holds" if study.gate.get("success") else "is broken", kind)
        expectations = study.gate.get("expectations", [])
        blocks.append(Html(f"<p>The gate between the roles (disjoint by id, text, group, n-gram): {state}, "
                           f"{len(expectations)} expectations.</p>"))  # fmt: skip
    null = study.auc(BASELINE)
    lead = "If an attack could tell members without the model, no figure here would be a leak of the model."
    if null:
        shown = with_interval(null["auc"], null["auc_ci95"])
        lead += f" The student that no teacher taught shows {study.attack} an AUC of {shown}."
    return Section("Controls", blocks or [absent("No control has been run.")], lead=lead)


def _row(study: Study, name: str) -> list[str]:
    membership = study.models[name].membership
    best = membership["controls"]["permutation"]["best"] or {}
    overlap = membership["controls"].get("overlap", {}).get("some", {}).get("n_nonmembers")
    return [
        label(name),
        number(best.get("auc")),
        number(best.get("null_q95")),
        p_value(best.get("p_value")),
        "" if overlap is None else str(overlap),
    ]
