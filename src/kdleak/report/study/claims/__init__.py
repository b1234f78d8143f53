"""The paper's claims (Zhang et al. 2025), each checked by a stated test on a study's results.

A function in this folder that bears `@claim` is one, and is found by it. The paper's own bear its numbers, 1 to 7; the
name of another says what it is (`2 at equal utility`).
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

from kdleak.render.wording import listed
from kdleak.report.study.conditions import conditions

if TYPE_CHECKING:
    from kdleak.report.study.findings import Finding
    from kdleak.report.study.results import Study

#: Number or name -> its test. `findings_of` runs all of them.
CLAIMS: dict[str, Callable[[Study], Finding]] = {}


def claim(name: str) -> Callable[[Callable[[Study], Finding]], Callable[[Study], Finding]]:
    """Register the decorated function as the test of the claim `name`."""

    def register(test: Callable[[Study], Finding]) -> Callable[[Study], Finding]:
        CLAIMS[name] = test
        return test

    return register


def findings_of(study: Study) -> list[Finding]:
    """The verdict on every registered claim: the paper's in its order, then the others by name."""
    for module in pkgutil.iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    found = [CLAIMS[name](study) for name in sorted(CLAIMS, key=lambda name: (not name.isdigit(), name))]
    return [_conditional(finding, study) if finding.runs else finding for finding in found]


def _conditional(finding: Finding, study: Study) -> Finding:
    """The finding with what every verdict of the study is conditional on, before what this one is beside."""
    by = [f"these attacks: {listed(finding.attacks)}"] if finding.attacks else []
    return replace(finding, conditional_on=[*conditions(study, finding.runs), *by, *finding.conditional_on])
