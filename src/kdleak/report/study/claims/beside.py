"""What start and corpus do: claims 2 and 3 in the paper's grid, and one divergence with an LM corpus and without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kdleak.core.variants import Variant
from kdleak.render.palette import label
from kdleak.report.study.claims import claim
from kdleak.report.study.claims.membership import (
    PAIRED,
    aucs,
    compare,
    every_pair,
    finding,
    ranking,
    reverse_below_forward,
)
from kdleak.report.study.conditions import recipe_conditions
from kdleak.report.study.findings import Finding, not_measured, views_by_run, views_of
from kdleak.report.study.results import PAPER_TECHNIQUES

if TYPE_CHECKING:
    from kdleak.report.study.results import Study

GRID = "run `dvc exp run -P -S 'study.grids=[paper]'`"
CORPUS = "run `dvc exp run -P -S 'study.lm_weights=[1.0]'`"


@claim("2 in the paper's grid")
def techniques_differ(study: Study) -> Finding:
    says = "With the start and corpus of each paper: SeqKD, ImitKD and KD leak most, MiniLLM least."
    return _in_the_papers_grid("2 in the paper's grid", says, ranking, PAPER_TECHNIQUES, study)


@claim("3 in the paper's grid")
def objective_matters(study: Study) -> Finding:
    says = "With the start and corpus of each paper: reverse KL leaks less than forward KL."
    return _in_the_papers_grid("3 in the paper's grid", says, reverse_below_forward, ("kd", "rkl"), study)


def _in_the_papers_grid(
    name: str, says: str, test: Callable[..., Finding], methods: Sequence[str], study: Study
) -> Finding:
    """The test of a claim on the runs `grid-paper`; the claim itself is judged on the controlled grid."""
    runs = {method: study.trials.get(Variant(method, grid="paper")) for method in methods}
    there = {method: model for method, model in runs.items() if model is not None}
    own = {method: model for method, model in there.items() if not model.mechanism_absent}
    caveat = " ".join(f"{model.mechanism_absent}." for model in there.values() if model.mechanism_absent)
    views = views_of(study.grouped({Variant(method): model.scores for method, model in own.items()}))
    if not views:
        reason = f"No two of these techniques have been themselves in the paper's grid: {GRID}. {caveat}"
        return not_measured(name, says, PAIRED, reason.strip())
    return test(name, says, views, caveat, recipe_conditions(own, "the paper's grid, alike for these"))


@claim("LM corpus")
def corpus_lowers_leak(study: Study) -> Finding:
    """Each divergence without an LM loss above itself with one: same start, steps, objective."""
    name, says = "LM corpus", "An LM loss on kd.lm_corpus beside a divergence lowers its leak."
    runs = {run: model for run, model in study.trials.items() if run.lm_weight is not None}
    plain = {Variant(run.method): study.models[run.method] for run in runs}
    views = views_by_run(study.grouped({run: model.scores for run, model in {**plain, **runs}.items()}))
    compared = compare(views, [(Variant(run.method), run) for run in runs], _named)
    if not compared:
        return not_measured(name, says, PAIRED, f"No divergence has been run with an LM loss beside it: {CORPUS}.")
    corpus = [f"the corpus {study.params.kd.lm_corpus}"]
    figures = {"auc": aucs(views)}
    return finding(name, says, compared, views, every_pair(compared), figures, conditional_on=corpus)


def _named(plain: Variant, run: Variant) -> str:
    return f"{label(plain.method)} without the LM loss over {label(plain.method)} with it (weight {run.lm_weight:g})"
