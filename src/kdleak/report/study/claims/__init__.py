"""The paper's claims (Zhang et al. 2025), each checked by a stated test on a study's results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.report.study.claims.blocks import blocks_differ
from kdleak.report.study.claims.matched import at_matched_utility
from kdleak.report.study.claims.membership import (
    every_technique_leaks,
    objective_matters,
    student_text_raises_risk,
    tasks_differ,
    techniques_differ,
)
from kdleak.report.study.claims.memorization import measures_disagree

if TYPE_CHECKING:
    from kdleak.report.study.findings import Finding
    from kdleak.report.study.results import Study

CLAIMS = (
    every_technique_leaks,
    techniques_differ,
    objective_matters,
    student_text_raises_risk,
    tasks_differ,
    measures_disagree,
    blocks_differ,
)


def findings_of(study: Study) -> list[Finding]:
    """The seven claims, then claims 2 and 3 at equal utility."""
    return [*(claim(study) for claim in CLAIMS), *at_matched_utility(study)]
