"""Attacks that must fail, and how often chance alone would do as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.auditing.controls import FAILED, PASSED
from kdleak.core.paths import BASELINE
from kdleak.render.blocks import Absent, Badge, Callout, Paragraph, Table
from kdleak.render.palette import label
from kdleak.render.wording import number, p_value, with_interval
from kdleak.report.study.sections import Content, section

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from kdleak.report.study.results import Study
    from kdleak.report.study.sections import Report

#: Blind scorers that are models, as the study calls them.
_MODELS = {"no_kd": "no-KD student", "pretrained": "pretrained base", "external": "model of another architecture"}
_TONES = {PASSED: "good", FAILED: "bad"}


@section("Controls", order=120)
def controls(report: Report) -> Content:
    """Attacks that must fail, and how often chance alone would do as well."""
    study = report.study
    names = study.with_("membership")
    controls_of = {name: study.models[name].membership["controls"] for name in names}
    failed = [name for name, each in controls_of.items() if "blind" in each and each["blind"]["state"] != PASSED]
    blind = next((controls_of[name]["blind"] for name in [*failed, *names] if "blind" in controls_of[name]), None)
    blocks: list[object] = [*([_blind(blind)] if blind else []), *_states(controls_of)]
    rows = [_row(study, name) for name in names if "permutation" in controls_of[name]]
    header = (
        "model",
        "best attack's AUC",
        "95 % of relabellings stay below",
        "as good by chance",
        "overlapping non-members",
    )
    if rows:
        blocks.append(Table(header, rows))
        n = max(
            controls_of[name]["permutation"]["n_permutations"] for name in names if "permutation" in controls_of[name]
        )
        words = f"The best attack of each model against the best of {n} random relabellings of the same records: the "
        words += "correction for having looked at several attacks. Overlapping: non-members that share a 13-gram with "
        blocks.append(Paragraph(f"{words}a member; they would make attacks look worse than they are."))
    clean = next((each["placebo"] for each in controls_of.values() if "placebo" in each), {}).get("teacher_aware")
    if clean:
        shown = with_interval(clean["auc"], clean["auc_ci95"])
        text = f"teacher_aware on a student of a teacher that saw no member: AUC {shown}, {clean['state']}. "
        blocks.append(Callout(text + clean["verdict"], "good" if clean["state"] == "passed" else "bad"))
    if study.gate:
        kind = "good" if study.gate.get("success") else "bad"
        state = Badge("holds" if study.gate.get("success") else "is broken", kind)
        expectations = study.gate.get("expectations", [])
        gate = "The gate between the roles (disjoint by id, text, group, n-gram): "
        blocks.append(Paragraph(gate, state, f", {len(expectations)} expectations."))
    null = study.auc(BASELINE)
    lead = "If an attack could tell members without the model, no figure here would be a leak of the model."
    if null:
        shown = with_interval(null["auc"], null["auc_ci95"])
        lead += f" The AUC of {study.attack} on the no-KD student: {shown}."
    alarm = ""
    if failed:
        alarm = f"{controls_of[failed[0]]['blind']['verdict']} No figure below can be read as a leak of a model."
    return Content(blocks or [Absent("No control has been run.")], lead, alarm=alarm)


def _blind(blind: Mapping[str, Any]) -> Callout:
    """The strongest of the blind scorers, and whether the battery passed."""
    scorer, tone = blind["scorer"], _TONES.get(blind["state"], "note")
    if scorer is None:
        return Callout(blind["verdict"], tone)
    model = _MODELS.get(scorer)
    who = f"The {model}, which saw neither list" if model else "A classifier that reads the text and asks no model"
    shown = with_interval(blind["auc"], blind["auc_ci95"])
    which = f"'{scorer}', the strongest of {len(blind['scorers'])} blind scorers"
    return Callout(f"{who} ({which}): AUC {shown}. {blind['verdict']}", tone)


def _states(controls_of: Mapping[str, Mapping[str, Any]]) -> list[object]:
    """A table of each model's controls: passed, failed, could not run; placebos with their AUC."""
    placebos = sorted({attack for each in controls_of.values() for attack in each.get("placebo", {})})
    rows = []
    for name, each in controls_of.items():
        cells = [_badge(each.get(key)) for key in ("blind", "permutation")]
        cells += [_badge(each.get("placebo", {}).get(attack)) for attack in placebos]
        rows.append([label(name), *cells])
    header = ("model", "blind attacks", "shuffled labels", *(f"placebo of {attack}" for attack in placebos))
    words = "Shuffled labels pass where the intervals exclude one half about as often as they say; a placebo where the "
    words += "attack finds nothing in models that never met the teacher. What could not run has not passed."
    return [Table(header, rows, words=len(header)), Paragraph(words)] if rows else []


def _badge(control: Mapping[str, Any] | None) -> object:
    if control is None:
        return ""
    shown = with_interval(control["auc"], control["auc_ci95"]) if "auc" in control else ""
    return Badge(f"{control['state']} {shown}".strip(), _TONES.get(control["state"], "note"))


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
