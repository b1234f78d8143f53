"""Whether claims 2 and 3 survive where all techniques have learned equally well."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kdleak.render.palette import label
from kdleak.report.study.claims.membership import ranking, reverse_below_forward
from kdleak.report.study.findings import Finding, not_measured
from kdleak.report.study.matched import Matched, curves, match
from kdleak.report.study.results import PAPER_TECHNIQUES

if TYPE_CHECKING:
    from kdleak.report.study.results import Study

TEST = "as at the published recipes, on AUCs interpolated at one held-out perplexity over a sweep of learning rates"
COMMAND = "run `dvc exp run -P -S 'study.lr_multipliers=[0.1,0.3,3]'`"


def at_matched_utility(study: Study) -> list[Finding]:
    """2 and 3 again, at the best held-out perplexity that most techniques pass."""
    made, says = (
        curves(study),
        {
            "2 at equal utility": "At equal held-out perplexity: SeqKD, ImitKD and KD leak most, MiniLLM least.",
            "3 at equal utility": "At equal held-out perplexity: reverse KL leaks less than forward KL.",
        },
    )
    tests = (ranking, reverse_below_forward)
    compared = (PAPER_TECHNIQUES, ("kd", "rkl"))
    found = []
    for (claim, words), test, names in zip(says.items(), tests, compared, strict=True):
        matched = match({name: points for name, points in made.items() if name in names})
        if matched is None:
            reason = f"No two of these techniques have been swept through one perplexity: {COMMAND}."
            found.append(not_measured(claim, words, TEST, reason))
        else:
            found.append(_at(matched, test(claim, words, matched.leaks, study.attack)))
    return found


def _at(matched: Matched, finding: Finding) -> Finding:
    """The finding, with the perplexity that it holds at."""
    caveat = f"At a held-out perplexity of {matched.perplexity:.4g}, taken as known."
    if matched.left_out:
        caveat += " Left out: " + "; ".join(f"{label(name)}, {why}" for name, why in matched.left_out.items()) + "."
    figures = {**finding.figures, "perplexity": matched.perplexity}
    return replace(finding, test=f"{finding.test}; {TEST}", figures=figures, caveat=caveat)
