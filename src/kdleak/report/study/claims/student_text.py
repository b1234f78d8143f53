"""The paper's claim 4: more student-generated data raises the risk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kdleak.core.variants import Variant
from kdleak.render.palette import label
from kdleak.render.wording import listed
from kdleak.report.study.claims import claim
from kdleak.report.study.claims.membership import PAIRED, aucs, compare, every_pair, finding
from kdleak.report.study.findings import Finding, not_measured, views_by_run

if TYPE_CHECKING:
    from kdleak.report.study.results import Model, Study

SAYS = "More student-generated data raises the risk."
COMMAND = "run `dvc exp run -P -S 'study.fractions=[0,0.5,1]'`"
#: Divergences that must have been swept: what one of them does is no rule.
FEWEST = 2


@claim("4")
def student_text_raises_risk(study: Study) -> Finding:
    """4. One divergence at several shares of student-written data, and nothing else changed: the largest share against
    the smallest. Techniques differ in more than their data, so none is compared with another."""
    sweeps = _sweeps(study)
    if len(sweeps) < FEWEST:
        reason = f"Needs the share of student-written data swept for two divergences, all else equal: {COMMAND}."
        swept = f" Swept here: {label(next(iter(sweeps)))} alone." if sweeps else ""
        return not_measured("4", SAYS, PAIRED, reason + swept)
    runs = {run: model for sweep in sweeps.values() for run, model in sweep.items()}
    views = views_by_run(study.grouped({run: model.scores for run, model in runs.items()}))
    ends = [(max(sweep, key=_fraction), min(sweep, key=_fraction)) for sweep in sweeps.values()]
    compared = compare(views, ends, _named)
    figures = {"auc": aucs(views), "student_token_share": {str(run): _share(model) for run, model in runs.items()}}
    alone = f"the share of student-written data alone, with {listed([label(name) for name in sweeps])}"
    alone += f" in the {study.params.kd.grid} grid"
    return finding("4", SAYS, compared, views, every_pair(compared), figures, conditional_on=[alone])


def _sweeps(study: Study) -> dict[str, Mapping[Variant, Model]]:
    """Divergence -> its runs by rising share, of those in which what the student wrote does rise."""
    sweeps = {}
    for method in study.params.study.divergences:
        runs = {run: model for run, model in study.trials.items() if run.method == method and run.fraction is not None}
        ordered = {run: runs[run] for run in sorted(runs, key=_fraction)}
        shares = [_share(model) for model in ordered.values()]
        if len(shares) > 1 and shares[0] < shares[-1]:
            sweeps[method] = ordered
    return sweeps


def _fraction(run: Variant) -> float:
    return run.fraction or 0.0


def _share(model: Model) -> float:
    """The share of the tokens trained on that the student wrote."""
    return ((model.training or {}).get("realised") or {}).get("student_token_share", 0.0)


def _named(high: Variant, low: Variant) -> str:
    return f"{label(high.method)} at a share of {high.fraction:g} over {low.fraction:g}"
