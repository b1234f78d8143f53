"""Whether claims 2 and 3 survive where all techniques have learned equally well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kdleak.render.palette import label
from kdleak.report.study.claims import claim
from kdleak.report.study.claims.membership import ranking, reverse_below_forward, themselves
from kdleak.report.study.findings import JUDGES, METRICS, Finding, View, not_measured
from kdleak.report.study.matched import Matched, curves, match
from kdleak.report.study.results import PAPER_TECHNIQUES

if TYPE_CHECKING:
    from kdleak.report.study.results import Study

TEST = "as at the published recipes, on AUCs interpolated at one held-out perplexity over a sweep of learning rates"
COMMAND = "run `dvc exp run -P -S 'study.lr_multipliers=[0.1,0.3,3]'`"


@claim("2 at equal utility")
def techniques_differ(study: Study) -> Finding:
    says = "At equal held-out perplexity: SeqKD, ImitKD and KD leak most, MiniLLM least."
    return _at_equal_utility("2 at equal utility", says, ranking, PAPER_TECHNIQUES, study)


@claim("3 at equal utility")
def objective_matters(study: Study) -> Finding:
    says = "At equal held-out perplexity: reverse KL leaks less than forward KL."
    return _at_equal_utility("3 at equal utility", says, reverse_below_forward, ("kd", "rkl"), study)


def _at_equal_utility(
    name: str, says: str, test: Callable[..., Finding], methods: Sequence[str], study: Study
) -> Finding:
    """The test of a claim, at the best held-out perplexity that most of `methods` pass."""
    own, not_here = themselves(study, [method for method in methods if method in study.models])
    found = {view: _matched(study, own, view) for view in (View(a, metric) for a in JUDGES for metric in METRICS)}
    views = {view: matched.leaks for view, matched in found.items() if matched is not None}
    if not views:
        reason = f"No two of these techniques have been swept through one perplexity: {COMMAND}. {not_here}"
        return not_measured(name, says, TEST, reason.strip())
    matched = next(each for each in found.values() if each is not None)
    finding = test(name, says, views, not_here)
    condition = f"a held-out perplexity of {matched.perplexity:.4g}, taken as known"
    caveat = finding.caveat
    if matched.left_out:
        left_out = "; ".join(f"{label(method)}, {why}" for method, why in matched.left_out.items())
        caveat = f"{caveat} Left out: {left_out}.".strip()
    figures = {**finding.figures, "perplexity": matched.perplexity}
    return replace(
        finding, test=f"{finding.test}; {TEST}", figures=figures, caveat=caveat, conditional_on=[condition]
    )  # fmt: skip


def _matched(study: Study, methods: Sequence[str], view: View) -> Matched | None:
    return match({method: points for method, points in curves(study, view).items() if method in methods})
