"""Did the paper's claims hold here? One row a claim, in plain words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdleak.render.blocks import Badge, Code, Details, Marked, Paragraph, Table
from kdleak.render.wording import in_words, p_value, with_interval
from kdleak.report.study.findings import CONTRADICTED, DEPENDS, INCONCLUSIVE, NOT_RUN, REPRODUCED, Finding
from kdleak.report.study.sections import Content, section
from kdleak.stats.contrasts import POWER

if TYPE_CHECKING:
    from kdleak.report.study.sections import Report

_KINDS = {REPRODUCED: "good", CONTRADICTED: "bad", DEPENDS: "note", INCONCLUSIVE: "note", NOT_RUN: "note"}


@section("The paper's claims", order=20)
def the_claims(report: Report) -> Content:
    findings = report.findings
    rows = [
        [finding.claim, finding.says, Badge(finding.verdict, _KINDS[finding.verdict]), _answer(finding)]
        for finding in findings
    ]
    seven = f"Of the paper's {in_words(sum(finding.claim.isdigit() for finding in findings))} claims"
    how = (
        "Every comparison is tested by every attack that judges claims and ran, by AUC and by TPR at 1 % FPR, with one "
        "Holm correction over all tests of a claim. A comparison is as claimed if at least one test is significantly "
        "so and none is the other way; significant both ways, it depends on the attack. A claim is reproduced if all "
        "its comparisons are as claimed, contradicted if one is the other way. Would have been found: the smallest "
        f"true difference of AUC that this design finds with {100 * POWER:g} % power at 5 %. Nothing here holds for "
        "a second training until one has been run."
    )
    tests = Table(
        ("claim", "test", "conditional on"),
        [[finding.claim, finding.test, "; ".join(finding.conditional_on)] for finding in findings],
        words=3,
    )
    compared = [
        [
            f.claim,
            c.contrast.name,
            f"{c.view.attack}, {c.view.metric}" if c.view else "",
            with_interval(c.contrast.value, c.contrast.interval, sign=True),
            p_value(c.p_holm),
            c.verdict,
        ]
        for f in findings
        for c in f.compared
    ]
    header = ("claim", "difference of", "by", "value [95 % interval]", "corrected", "says")
    return Content(
        [
            Table(("", "claim", "here", "what was found"), rows, words=4),
            Paragraph(how),
            Details("Tests and every comparison behind the verdicts", tests, Table(header, compared, words=3)),
            Paragraph("The same, for programs: ", Code("results/findings.json"), "."),
        ],
        lead=f"{seven}, {tally(findings)}.",
        gist=f"{seven} {tally(findings)}.",
    )


def tally(findings: Sequence[Finding]) -> str:
    """How many of the paper's claims were reproduced, contradicted, left open."""
    counts = Counter(finding.verdict for finding in findings if finding.claim.isdigit())
    counted = [_counted(counts[kind], kind) for kind in _KINDS if counts[kind]]
    return ", ".join(counted)


def _counted(count: int, kind: str) -> str:
    if kind == DEPENDS:
        return f"{count} {'depends' if count == 1 else 'depend'} on the attack"
    return f"{count} {'is' if count == 1 else 'are'} {kind}"


def _answer(finding: Finding) -> Marked:
    smallest = ""
    if finding.detectable is not None:
        smallest = f"A difference of {finding.detectable:.2g} would have been found."
    return Marked(" ".join(filter(None, [finding.answer, smallest, finding.caveat])))
