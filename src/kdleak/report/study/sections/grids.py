"""The techniques in both grids, with one start and no corpus and with those of their papers; what the corpus does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.core.variants import BASELINE, Variant
from kdleak.render.blocks import Absent, Block, Heading, Paragraph, Table
from kdleak.render.palette import label
from kdleak.render.wording import number, with_interval
from kdleak.report.study.claims.beside import CORPUS, GRID
from kdleak.report.study.sections import Content, section

if TYPE_CHECKING:
    from kdleak.report.study.results import Model, Study
    from kdleak.report.study.sections import Report


@section("Two grids", order=27)
def two_grids(report: Report) -> Content:
    """Leak beside utility in the controlled grid and in the paper's; kd with and without an LM corpus."""
    study = report.study
    corpus = [Heading("What the corpus does"), *_corpus(report)]
    pairs = {name: study.trials.get(Variant(name, grid="paper")) for name in study.techniques}
    both = {name: (study.models[name], model) for name, model in pairs.items() if model and auc(study, model)}
    if not both:
        return Content([Absent(f"The paper's grid has not been run beside this one: {GRID}."), *corpus])
    rows = [
        [
            label(name),
            shown_auc(study, one),
            shown_auc(study, other),
            perplexity(one),
            perplexity(other),
            _adds(other),
        ]
        for name, (one, other) in both.items()
    ]
    attack = f"AUC of {study.attack}"
    header = ("technique", f"{attack}, controlled", "in its paper's grid", "perplexity, controlled",
              "in its paper's grid", "what the paper's adds")  # fmt: skip
    orders = [sorted(both, key=lambda n: -auc(study, both[n][side])["auc"]) for side in (0, 1)]
    ends = [f"{label(order[0])} leaks most and {label(order[-1])} least" for order in orders]
    lead = f"In the controlled grid {ends[0]}; each with the start and the corpus of its paper, {ends[1]}."
    words = "Claims 2 to 4 are judged on the controlled grid: start and corpus decide what the techniques do not."
    return Content([Table(header, rows), Paragraph(words), *corpus], lead if len(both) > 1 else "")


def auc(study: Study, model: Model) -> dict:
    """The headline attack's figures; {} where the model lacks them."""
    return (model.membership or {}).get("attacks", {}).get(study.attack) or {}


def shown_auc(study: Study, model: Model) -> str:
    figures = auc(study, model)
    return with_interval(figures.get("auc"), figures.get("auc_ci95"))


def perplexity(model: Model) -> str:
    return number((model.utility or {}).get("perplexity"), 1)


def _adds(model: Model) -> str:
    training = model.training or {}
    start = "the no-KD student" if training.get("starts_from") == BASELINE else "the base"
    weight = training.get("lm_weight") or 0
    return f"from {start}" + (f", LM loss {weight:g}" if weight else "")


def _corpus(report: Report) -> list[Block]:
    study = report.study
    runs = {run: model for run, model in study.trials.items() if run.lm_weight is not None and auc(study, model)}
    rows = []
    for method in dict.fromkeys(run.method for run in runs):
        rows.append([label(method), "none", shown_auc(study, study.models[method]), perplexity(study.models[method])])
        rows += [
            [label(method), f"{study.params.kd.lm_corpus}, weight {run.lm_weight:g}", shown_auc(study, model),
             perplexity(model)]
            for run, model in runs.items() if run.method == method
        ]  # fmt: skip
    if not rows:
        return [Absent(f"No divergence has been run with an LM loss beside it: {CORPUS}.")]
    said = next((finding.answer for finding in report.findings if finding.claim == "LM corpus"), "")
    header = ("technique", "LM corpus", f"AUC of {study.attack}", "held-out perplexity")
    return [Table(header, rows, words=2), Paragraph(said)]
