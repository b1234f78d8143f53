"""A claim's verdict: what was compared, by which test, and how small a difference it would have found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kdleak.stats.contrasts import ALPHA, Contrast, corrected

REPRODUCED, CONTRADICTED, INCONCLUSIVE = "reproduced", "contradicted", "inconclusive"


@dataclass(frozen=True)
class Compared:
    """A contrast with its corrected p-value, and what it says of the claim."""

    contrast: Contrast
    p_holm: float
    verdict: str


@dataclass(frozen=True)
class Finding:
    """What the study says of one claim.

    claim: number in the paper's list, with a suffix for a claim under other conditions. says: the claim in plain words.
    test: how the verdict is reached. answer: the verdict in plain words. figures: further numbers that it rests on.
    detectable: the smallest difference that this design would have found for an inconclusive claim (80 % power at 5 %).
    """

    claim: str
    says: str
    verdict: str
    test: str
    answer: str
    compared: Sequence[Compared] = ()
    figures: dict[str, Any] = field(default_factory=dict)
    detectable: float | None = None
    caveat: str = ""

    def record(self) -> dict[str, Any]:
        """The content of findings.json for this claim."""
        return {
            "claim": self.claim,
            "says": self.says,
            "verdict": self.verdict,
            "test": self.test,
            "answer": self.answer,
            "caveat": self.caveat,
            "detectable": self.detectable,
            "figures": self.figures,
            "comparisons": [
                {
                    "what": c.contrast.name,
                    "difference": c.contrast.value,
                    "ci95": list(c.contrast.interval),
                    "p_value": c.contrast.p_value,
                    "p_holm": c.p_holm,
                    "records": c.contrast.n,
                    "verdict": c.verdict,
                }
                for c in self.compared
            ],
        }


def judged(contrasts: Sequence[Contrast]) -> list[Compared]:
    """Each contrast's verdict: reproduced where it is positive by its Holm-corrected test, contradicted where it is
    negative by it, else inconclusive."""
    return [Compared(c, p, _one(c, p)) for c, p in zip(contrasts, corrected(contrasts), strict=True)]


def together(compared: Sequence[Compared]) -> str:
    """The verdict on a claim that all contrasts must bear out: contradicted by any one that is reversed."""
    verdicts = [c.verdict for c in compared]
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    return REPRODUCED if verdicts and set(verdicts) == {REPRODUCED} else INCONCLUSIVE


def detectable(compared: Sequence[Compared], tests: int | None = None) -> float | None:
    """The smallest difference that would have been found in each open contrast of an open claim, with 80 % power at a
    level of 5 %; None where no error is known. tests: how many share the level, by default as many as are compared."""
    if together(compared) != INCONCLUSIVE:
        return None
    smallest = [c.contrast.detectable(tests or len(compared)) for c in compared if c.verdict == INCONCLUSIVE]
    return max(smallest) if smallest and all(map(math.isfinite, smallest)) else None


def not_measured(claim: str, says: str, test: str, reason: str) -> Finding:
    """A claim of which the study has not measured what it would take."""
    return Finding(claim, says, INCONCLUSIVE, test, reason)


def _one(contrast: Contrast, p: float) -> str:
    if not math.isfinite(p) or p >= ALPHA:
        return INCONCLUSIVE
    return REPRODUCED if contrast.value > 0 else CONTRADICTED
