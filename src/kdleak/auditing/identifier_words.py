"""What ranks of natural identifiers say in words, and their part of the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdleak.auditing.controls import FAILED, PASSED
from kdleak.render.blocks import Callout, Paragraph, Strong, Table
from kdleak.render.page import Section
from kdleak.render.wording import UNKNOWN, number, p_value

#: p-value from which on identifiers are said to have been learned.
LEVEL = 0.01
_CONTROL = {
    PASSED: "Non-members' identifiers are told no better than by chance.",
    FAILED: "Non-members' identifiers are told better than by chance.",
}


def identifier_words(found: Mapping[str, Any]) -> dict[str, Any]:
    """{headline, sentences} of `audit_identifiers`."""
    members, others = found["members"], found["alternatives"]
    if found["why"]:
        return {"headline": "Of the records' identifiers nothing can be said.", "sentences": [found["why"]]}
    p, count = members["p_value"], members["identifiers"]
    ranked = (
        f"Of {count} members with an identifier of their own the student prefers it to {others} others of its format "
        f"in {members['first']}; by chance that would be {count / (1 + others):.1f}."
    )
    control = _CONTROL.get(found["control"], "Too few non-members have an identifier to show what chance would give.")
    sentences = [ranked, control]
    if p > LEVEL:
        headline = f"Nothing shows that the student has met the members' identifiers ({p_value(p)})."
        return {"headline": headline, "sentences": [*sentences, "That is no proof that it has not."]}
    bound = (
        f"At 95 % confidence no such training is (ε, δ)-private for ε below {number(found['epsilon_lower'], 2)} at δ "
        f"{found['delta']:g}, if a record is replaced by one with another identifier: a bound of the training "
        "procedure on records with identifiers like these, not of a model."
    )
    sentences += [bound] if found["epsilon_lower"] > 0 else []
    return {"headline": f"The student has met identifiers of the members ({p_value(p)}).", "sentences": sentences}


def identifier_section(found: Mapping[str, Any]) -> Section:
    """The page's section on identifiers; none of them stands in it."""
    header = ["", "with an identifier of their own", "preferred to all others", "mean rank (0 first, .5 chance)", "p"]
    rows = [
        [side, each["identifiers"], each["first"], _or_unknown(each["mean_rank"]), _or_unknown(each["p_value"])]
        for side, each in (("members", found["members"]), ("non-members", found["nonmembers"]))
    ]
    tone = "bad" if found["epsilon_lower"] and found["members"]["p_value"] <= LEVEL else "warn"
    lead = (
        f"A hash, UUID or short link is random; {found['alternatives']} others of the same pattern might as well have "
        "stood in its record, so that each record is its own control."
    )
    callout = Callout(Paragraph(Strong(found["headline"])), tone)
    return Section("Identifiers", [callout, *map(Paragraph, found["sentences"]), Table(header, rows)], lead)


def _or_unknown(value: float | None) -> str:
    return UNKNOWN if value is None else number(value, 3)
