"""What canaries planted by a coin each certify of ε, beside what an accountant states, and whether the order holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from kdleak.certify.chain import BROKEN
from kdleak.core.paths import BASELINE, TEACHER
from kdleak.render.blocks import Absent, Block, Bullets, Callout, Paragraph, Table
from kdleak.render.palette import label
from kdleak.render.wording import percent
from kdleak.report.study.sections import Content, section
from kdleak.shadow.report import settings_of

if TYPE_CHECKING:
    from kdleak.report.study.sections import Report

HEADER = (
    "defence",
    "model",
    "ε at least",
    "Gaussian form",
    "many trainings",
    "accountant's ε",
    "guesses right",
    "attack",
)
#: What every figure of the section is of.
MEANING = (
    "A bound is of a training procedure with these canaries, not of a model: at 95 % confidence no training of this "
    "kind is (ε, δ)-private for a smaller ε. 0 says that these guesses refute nothing, not that nothing leaks. Attack "
    "and thresholds were chosen on the other half of the canaries. The Gaussian form bounds Gaussian mechanisms alone."
)


@section("What ε is certified", order=89)
def certified_epsilon(report: Report) -> Content:
    """The bounds of every audited defence, the chain between them, and what the canaries cost."""
    audits = (report.study.epsilon or {}).get("audits")
    if not audits:
        how = "No ε was certified (`dvc exp run -S epsilon.canaries=500`): a membership figure bounds no procedure's ε."
        return Content([Absent(how)])
    rows = [row for name, found in audits.items() for row in _rows(name, found)]
    blocks: list[Block] = [Paragraph(MEANING), Table(HEADER, rows, words=2)]
    blocks.append(Bullets([_remark(name, found) for name, found in audits.items()]))
    own = settings_of(report.study.params)
    for name, found in audits.items():
        if others := [f"{key} {found[key]}" for key in own if key != "defence" and own[key] != found[key]]:
            blocks.insert(0, Callout(f"{name}: of other settings than the rest of the page: {', '.join(others)}."))
        links = [f"{each['link']}: {each['why']}" for each in found["chain"] if each["state"] == BROKEN]
        if links:
            blocks.insert(0, Callout(f"{name}: the chain is broken: {'; '.join(links)}.", kind="bad"))
    return Content(blocks, lead=_lead(audits))


def _rows(name: str, found: Mapping[str, Any]) -> list[list[str]]:
    many = found["multi_run"].get("models", {})
    rows = []
    for model in _ordered(found["models"]):
        each = found["models"][model]
        one, f_dp = each["one_run"], each["f_dp"]["epsilon_lower"]
        accountant = each.get("accountant", found["accountant"])
        stated = "" if model == BASELINE else "none" if accountant is None else f"{accountant:.2f}"
        rows.append([
            name, label(model), f"{one['epsilon_lower']:.2f}", "" if f_dp is None else f"{f_dp:.2f}",
            f"{many[model]['epsilon_lower']:.2f}" if model in many else "", stated,
            f"{one['correct']} of {one['guesses']}", one["attack"],
        ])  # fmt: skip
    return rows


def _ordered(models: Iterable[str]) -> list[str]:
    """The teacher, its students, the no-KD student."""
    return sorted(models, key=lambda name: (name != TEACHER, name == BASELINE, name))


def _remark(name: str, found: Mapping[str, Any]) -> str:
    states = [each["state"] for each in found["chain"]]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    one, perplexity = found["models"][TEACHER]["one_run"], found["perplexity"]
    said = (
        f"{name}: {found['planted']} of {found['canaries']} canaries planted among {found['records']} records, δ "
        f"{found['delta']:.2g}; of {one['canaries']} coins a bound counts, {one['guesses']} right guesses would "
        f"certify {one['epsilon_if_all_right']:.2f}. Beside a teacher of as many ordinary records they cost "
        f"{percent(perplexity['cost'])} of perplexity. "
        f"Chain: {counted}."
    )
    many = found["multi_run"]
    return said if many["state"] == "ran" else f"{said} Over many trainings: {many['why']}."


def _lead(audits: Mapping[str, Any]) -> str:
    name = "none" if "none" in audits else next(iter(audits))
    models = audits[name]["models"]
    bounds = [(each, models[each]["one_run"]["epsilon_lower"]) for each in _ordered(models) if each != BASELINE]
    told = ", ".join(f"{label(model)} {low:.2f}" for model, low in bounds)
    return f"ε of these procedures with these canaries, under defence {name}, is at least: {told} (95 % confidence)."
