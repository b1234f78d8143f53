"""A claim's verdict: what was compared, by which test, what it is conditional on, how small a difference it would find.

The rule. A claim says of some pairs of models that the first leaks more. Each pair is tested by every attack of JUDGES
that ran, by AUC and by TPR at 1 % FPR; Holm's correction is over all of a claim's tests. A pair is *reproduced* if at
least one test is significant as claimed and none against, *contradicted* if at least one is significant against and
none as claimed, *depends on the attack* if there are both, else *inconclusive*. A claim is contradicted if one of its
pairs is, else depends on the attack if one of them does, else is reproduced if all are, else is inconclusive.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kdleak.render.wording import SMALLEST_P, listed
from kdleak.stats.contrasts import ALPHA, Contrast, corrected, leaks
from kdleak.stats.delong import Groups, Leak
from kdleak.stats.tpr import tpr_leak
from kdleak.stats.trainings import MeanLeak

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from kdleak.core.variants import Variant

REPRODUCED, CONTRADICTED, DEPENDS = "reproduced", "contradicted", "depends on the attack"
INCONCLUSIVE, NOT_RUN = "inconclusive", "not run"

#: The attacks that judge a claim, where they ran: one of each kind that an outsider has.
JUDGES = ("loss", "ref_pretrained", "ez", "wbc", "ref_no_kd")
AUC, TPR = "AUC", "TPR at 1 % FPR"


def _tpr(members: np.ndarray, nonmembers: np.ndarray, groups: Groups | None = None) -> Leak | None:
    return tpr_leak(members, nonmembers, 0.01, groups)


METRICS = {AUC: Leak.of, TPR: _tpr}


@dataclass(frozen=True)
class View:
    """An attack and the measure by which its scores are compared."""

    attack: str
    metric: str = AUC


#: By view, the leak of each model (method, or run) on the records that all of them define; a mean over its trainings
#: where there are several.
Views = Mapping[View, Mapping[Any, Leak | MeanLeak]]


@dataclass(frozen=True)
class Compared:
    """A contrast with its corrected p-value, what it says of the claim, and the view that it was measured by."""

    contrast: Contrast
    p_holm: float
    verdict: str
    view: View | None = None


@dataclass(frozen=True)
class Finding:
    """What the study says of one claim.

    claim: number in the paper's list, with a suffix for a claim under other conditions. says: the claim in plain words.
    test: how the verdict is reached. answer: the verdict in plain words. figures: further numbers that it rests on.
    detectable: the smallest difference that this design would have found for an inconclusive claim (80 % power at 5 %).
    conditional_on: what the verdict holds for and no further. runs: trainings of each student that it rests on.
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
    conditional_on: Sequence[str] = ()
    attacks: Sequence[str] = ()
    runs: int = 1

    def record(self) -> dict[str, Any]:
        """The content of findings.json for this claim."""
        return {
            "claim": self.claim,
            "says": self.says,
            "verdict": self.verdict,
            "conditional_on": list(self.conditional_on),
            "runs": self.runs,
            "attacks": list(self.attacks),
            "test": self.test,
            "answer": self.answer,
            "caveat": self.caveat,
            "detectable": self.detectable,
            "figures": {name: _probability(value) if name.endswith("_p") else value
                        for name, value in self.figures.items()},
            "comparisons": [
                {
                    "what": c.contrast.name,
                    **({"attack": c.view.attack, "metric": c.view.metric} if c.view else {}),
                    "difference": c.contrast.value,
                    "ci95": list(c.contrast.interval),
                    "p_value": _probability(c.contrast.p_value),
                    "p_holm": _probability(c.p_holm),
                    "records": c.contrast.n,
                    **({"runs": c.contrast.runs, "error_between_runs": c.contrast.between}
                       if c.contrast.runs > 1 else {}),
                    "verdict": c.verdict,
                }
                for c in self.compared
            ],
        }  # fmt: skip


def views_by_run(scores: Mapping[Variant, pd.DataFrame]) -> Mapping[View, Mapping[Variant, Leak]]:
    """Each of JUDGES that two of the runs ran, by each metric that its records suffice for."""
    found = {View(a, metric): leaks(scores, a, measure) for a in JUDGES for metric, measure in METRICS.items()}
    return {view: areas for view, areas in found.items() if len(areas) > 1}


def views_of(scores: Mapping[Variant, pd.DataFrame]) -> Views:
    """The same by method, over the trainings of each, where there are two methods."""
    found = {view: over_trainings(areas) for view, areas in views_by_run(scores).items()}
    return {view: areas for view, areas in found.items() if len(areas) > 1}


def over_trainings(found: Mapping[Variant, Leak]) -> dict[str, Leak | MeanLeak]:
    """Method -> its leak; where one was trained several times, of every student the mean over its trainings."""
    by_method: dict[str, dict[int | None, Leak]] = {}
    for run, leak in found.items():
        by_method.setdefault(run.method, {})[run.seed] = leak
    repeated = any(len(by_seed) > 1 for by_seed in by_method.values())
    students = {run.method for run in found if run.is_distilled} if repeated else ()
    return {name: MeanLeak(each) if name in students else each[None] for name, each in by_method.items()}


def attacks_of(views: Views) -> tuple[str, ...]:
    return tuple(dict.fromkeys(view.attack for view in views))


def judged(contrasts: Sequence[Contrast], views: Sequence[View | None] | None = None) -> list[Compared]:
    """Each contrast's verdict: reproduced where it is positive by its Holm-corrected test, contradicted where it is
    negative by it, else inconclusive. views: what each was measured by."""
    views = views or [None] * len(contrasts)
    found = zip(contrasts, corrected(contrasts), views, strict=True)
    return [Compared(c, p, _one(c, p), view) for c, p, view in found]


def by_pair(compared: Sequence[Compared]) -> dict[str, str]:
    """Comparison -> its verdict over the views that tested it."""
    verdicts: dict[str, set[str]] = {}
    for each in compared:
        verdicts.setdefault(each.contrast.name, set()).add(each.verdict)
    return {name: over_views(found) for name, found in verdicts.items()}


def over_views(verdicts: set[str]) -> str:
    """One comparison's verdict from those of its tests."""
    if {REPRODUCED, CONTRADICTED} <= verdicts:
        return DEPENDS
    return next((each for each in (CONTRADICTED, REPRODUCED) if each in verdicts), INCONCLUSIVE)


def together(compared: Sequence[Compared]) -> str:
    """The verdict on a claim that all comparisons must bear out."""
    verdicts = set(by_pair(compared).values())
    for decisive in (CONTRADICTED, DEPENDS):
        if decisive in verdicts:
            return decisive
    return REPRODUCED if verdicts == {REPRODUCED} else INCONCLUSIVE


def detectable(compared: Sequence[Compared]) -> float | None:
    """The smallest difference of AUC that the most sensitive attack would have found in every open comparison of an
    open claim, with 80 % power at a level of 5 % shared by all tests; None where no error is known."""
    if together(compared) != INCONCLUSIVE:
        return None
    smallest: dict[str, list[float]] = {name: [] for name, v in by_pair(compared).items() if v == INCONCLUSIVE}
    for each in compared:
        if each.contrast.name in smallest and (each.view is None or each.view.metric == AUC):
            smallest[each.contrast.name].append(each.contrast.detectable(len(compared)))
    best = [min(found, default=math.nan) for found in smallest.values()]
    return max(best) if best and all(map(math.isfinite, best)) else None


def runs_of(compared: Sequence[Compared]) -> int:
    """Trainings of each model that all of a claim's comparisons rest on."""
    return min((each.contrast.runs for each in compared), default=0)


def tested_by(views: Views, compared: Sequence[Compared]) -> str:
    """How a claim is judged, for its entry: the attacks, the metrics, the correction."""
    metrics = dict.fromkeys(view.metric for view in views)
    left_out = "" if TPR in metrics or not views else f" ({TPR} needs 500 non-members)"
    seeds = "paired by seed, errors between trainings and over records; "
    return (
        f"paired on the same records by {listed(attacks_of(views))}, {' and '.join(metrics)}{left_out}; "
        f"{seeds if runs_of(compared) > 1 else ''}two-sided at 5 %, Holm-corrected over {len(compared)} tests"
    )


def not_measured(claim: str, says: str, test: str, reason: str) -> Finding:
    """A claim of which the study has not measured what it would take."""
    return Finding(claim, says, NOT_RUN, test, reason, runs=0)


def _one(contrast: Contrast, p: float) -> str:
    if not math.isfinite(p) or p >= ALPHA:
        return INCONCLUSIVE
    return REPRODUCED if contrast.value > 0 else CONTRADICTED


def _probability(p: float) -> float | str:
    """A p-value for findings.json: so far out in its tail the normal approximation is no probability."""
    return "< 1e-6" if p < SMALLEST_P else p
