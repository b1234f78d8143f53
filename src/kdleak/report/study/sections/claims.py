"""Did the paper's claims hold here? One row a claim, in plain words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kdleak.render.page import Html, Section, code, details, marked, paragraph, table, verdict
from kdleak.render.wording import p_value, with_interval
from kdleak.report.study.findings import CONTRADICTED, INCONCLUSIVE, REPRODUCED, Finding
from kdleak.stats.contrasts import POWER

_KINDS = {REPRODUCED: "good", CONTRADICTED: "bad", INCONCLUSIVE: "note"}


def the_claims(findings: Sequence[Finding]) -> Section:
    rows = [
        [finding.claim, finding.says, verdict(finding.verdict, _KINDS[finding.verdict]), _answer(finding)]
        for finding in findings
    ]
    lead = f"Of the paper's seven claims, {tally(findings)}."
    how = (
        "A claim made of several comparisons is reproduced if all of them are significant its way, contradicted if one "
        "is significant the other way, else inconclusive. Would have been found: the smallest true difference that "
        f"this design finds with {100 * POWER:g} % power at 5 %."
    )
    tests = table(("claim", "test"), [[finding.claim, finding.test] for finding in findings], words=2)
    compared = [
        [
            f.claim,
            c.contrast.name,
            with_interval(c.contrast.value, c.contrast.interval, sign=True),
            p_value(c.p_holm),
            c.verdict,
        ]
        for f in findings
        for c in f.compared
    ]
    header = ("claim", "difference of", "value [95 % interval]", "corrected", "says")
    return Section(
        "The paper's claims",
        [
            table(("", "claim", "here", "what was found"), rows, words=4),
            paragraph(how),
            details("Tests and every comparison behind the verdicts", tests, table(header, compared, words=2)),
            paragraph("The same, for programs: ", code("results/findings.json"), "."),
        ],
        lead=lead,
    )


def tally(findings: Sequence[Finding]) -> str:
    """How many of the seven claims were reproduced, contradicted, left open."""
    counts = Counter(finding.verdict for finding in findings if finding.claim.isdigit())
    said = [f"{counts[kind]} {'is' if counts[kind] == 1 else 'are'} {kind}" for kind in _KINDS if counts[kind]]
    return ", ".join(said)


def _answer(finding: Finding) -> Html:
    said = [marked(finding.answer)]
    if finding.detectable is not None:
        said.append(Html(f"A difference of {finding.detectable:.2g} would have been found."))
    if finding.caveat:
        said.append(marked(finding.caveat))
    return Html(" ".join(said))
