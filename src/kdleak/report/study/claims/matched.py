"""Whether claims 2 and 3 survive where all techniques have learned equally well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kdleak.render.palette import label
from kdleak.report.study.claims import claim
from kdleak.report.study.claims.membership import ranking, reverse_below_forward
from kdleak.report.study.findings import Finding, not_measured
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
    matched = match({method: points for method, points in curves(study).items() if method in methods})
    if matched is None:
        return not_measured(
            name, says, TEST, f"No two of these techniques have been swept through one perplexity: {COMMAND}."
        )
    return _at(matched, test(name, says, matched.leaks, study.attack))


def _at(matched: Matched, finding: Finding) -> Finding:
    """The finding, with the perplexity that it holds at."""
    caveat = f"At a held-out perplexity of {matched.perplexity:.4g}, taken as known."
    if matched.left_out:
        caveat += " Left out: " + "; ".join(f"{label(name)}, {why}" for name, why in matched.left_out.items()) + "."
    figures = {**finding.figures, "perplexity": matched.perplexity}
    return replace(finding, test=f"{finding.test}; {TEST}", figures=figures, caveat=caveat)
