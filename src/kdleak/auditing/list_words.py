"""What the verdict on a whole list says in words, and its part of the page. No sentence says that nothing was used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdleak.auditing.list_verdict import LEARNED, NO_EVIDENCE, NO_NULL, UNTOLD
from kdleak.render.blocks import Callout, Paragraph, Strong, Table
from kdleak.render.page import Section
from kdleak.render.wording import UNKNOWN, number, p_value, percent, with_interval

_TONE = {LEARNED: "bad", NO_EVIDENCE: "warn", UNTOLD: "warn"}


def in_words(listed: Mapping[str, Any]) -> dict[str, Any]:
    """{headline, sentences} of a report of `list_verdict`."""
    if listed["kind"] == UNTOLD and listed["why"] != NO_NULL:
        return {"headline": "Of the list as a whole nothing can be said.", "sentences": [listed["why"]]}
    p, count = p_value(listed["p_value"]), len(listed["attacks"])
    how = (
        f"Weights of {count} attacks were learned on half of both lists and tested on the other half; "
        f"p is the share of {listed['permutations']:,} shuffled lists that do as well when all is learned anew."
    )
    if listed["kind"] != NO_EVIDENCE:
        own = listed["own_share"]
        share = (
            f" Had {percent(own, 0)} of the list been used, as these records were, it would have been noticed too "
            "(with a probability of 95 %)."
            if own is not None
            else ""
        )
        if listed["kind"] == UNTOLD:
            headline = f"Together, the records of this list stand out from the non-members to this student ({p})."
            return {"headline": headline, "sentences": [how + share, listed["why"]]}
        headline = f"The student learned from this list: together, its records stand out from the non-members ({p})."
        return {"headline": headline, "sentences": [how + share]}
    headline = f"Nothing shows that the student learned from this list ({p}); that is no proof that it did not."
    return {"headline": headline, "sentences": [how, _noticed(listed), *_against(listed)]}


def _noticed(listed: Mapping[str, Any]) -> str:
    """What would have been noticed with a probability of 95 %."""
    least = listed["noticeable_auc"]
    if least is None:
        return "Had the whole list been used, even that might have gone unnoticed: so few records rule nothing out."
    shares = [
        f"{percent(share, 0)} of it at {number(float(auc), 2)}"
        for auc, share in listed["shares"].items()
        if share is not None
    ]
    parts = f"; {', '.join(shares)}" if shares else ""
    return (
        f"Noticed (95 %) would have been a list that was used whole if each attack told its records with an AUC of "
        f"{number(least, 2)}{parts}. What a paraphrase leaves of a record, no such test sees."
    )


def _against(listed: Mapping[str, Any]) -> list[str]:
    """The converse, where it can be had: what use of the list would hardly have left so little."""
    auc, share = listed["ruled_out"]["auc"], listed["ruled_out"]["share"]
    if auc is None:
        return []
    teacher = f", and against {percent(share, 0)} of the list that stood out as it does in the teacher" if share else ""
    return [
        f"It speaks against a list that was used whole and told by each attack with an AUC of {number(auc, 2)} or more"
        f"{teacher}: either would have left so little in at most {percent(listed['alpha'], 0)} of cases."
    ]


def list_section(listed: Mapping[str, Any]) -> Section:
    """The page's section on the list as a whole."""
    rows = [
        ["p-value, one-sided, of a test at level " + number(listed["alpha"], 2), number(listed["p_value"], 4)],
        ["AUC of the cross-fitted score of all attacks", with_interval(listed["auc"], listed["auc_ci95"])],
        ["each attack's AUC at which the whole list would have been noticed", number(listed["noticeable_auc"], 2)],
    ]
    rows += [
        [f"share that would have been noticed, had each attack an AUC of {number(float(auc), 2)}", percent(share, 0)]
        for auc, share in listed["shares"].items()
    ]
    rows += [["share that would have been noticed, used as these were", percent(listed["own_share"], 0)]]
    rows += [
        [f"the same test on the {name}, which never met the teacher: p", UNKNOWN if p is None else number(p, 3)]
        for name, p in listed["placebo"].items()
    ]
    callout = Callout(Paragraph(Strong(listed["headline"])), _TONE[listed["kind"]])
    lead = "Many signals that name no single record may still show that a list was used."
    return Section(
        "The list as a whole", [callout, *map(Paragraph, listed["sentences"]), Table(["", ""], rows, words=1)], lead
    )
