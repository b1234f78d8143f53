"""What a student is worth against what it leaks; and the ranking where all are worth the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.core.paths import BASELINE
from kdleak.render import charts
from kdleak.render.blocks import Absent, Block, Chart, Heading, Paragraph, SideBySide, Table
from kdleak.render.charts import Estimate
from kdleak.render.palette import label
from kdleak.render.wording import listed, number, with_interval
from kdleak.report.study.claims.matched import COMMAND
from kdleak.report.study.matched import curves, match
from kdleak.report.study.sections import Content, section
from kdleak.report.study.sections.headline import estimate
from kdleak.stats.contrasts import Contrast, Leak

if TYPE_CHECKING:
    from kdleak.report.study.results import Study
    from kdleak.report.study.sections import Report


@section("Usefulness against leak", order=100)
def worth_against_leak(report: Report) -> Content:
    """Perplexity and ROUGE-L on records that nobody saw, against AUC, at the recipes and at equal perplexity."""
    study = report.study
    names = [n for n in [BASELINE, *study.techniques] if study.models[n].utility and study.auc(n)]
    if not names:
        return Content([Absent("Utility has not been measured (`dvc repro -P`)."), *_matched(study)])
    useful = {name: study.models[name].utility for name in names}
    auc = f"AUC of {study.attack}"
    by_perplexity = {n: (Estimate(useful[n]["perplexity"]), estimate(study.auc(n))) for n in names}
    by_rouge = {n: (Estimate(useful[n]["rouge_l"], useful[n]["rouge_l_ci95"]), estimate(study.auc(n))) for n in names}
    perplexity = charts.scatter(by_perplexity, xlabel="held-out perplexity", ylabel=auc)
    rouge_l = charts.scatter(by_rouge, xlabel="ROUGE-L", ylabel=auc)
    drawn = SideBySide(
        Chart(perplexity, "Lower perplexity is better; lower AUC leaks less."),
        Chart(rouge_l, "Higher ROUGE-L is better; lower AUC leaks less."),
    )
    rows = [
        [label(n), number(useful[n]["perplexity"], 2), with_interval(useful[n]["rouge_l"], useful[n]["rouge_l_ci95"]),
         with_interval(study.auc(n)["auc"], study.auc(n)["auc_ci95"])]
        for n in sorted(names, key=lambda n: study.auc(n)["auc"])
    ]  # fmt: skip
    front = _front(study, names)
    lead = f"No student is both more useful (by perplexity) and safer than {listed([label(n) for n in front])}"
    lead += "; each of the others leaks more than one of these and is worth less." if len(front) < len(names) else "."
    return Content(
        [drawn, Table(("student", "held-out perplexity", "ROUGE-L", auc), rows), *_matched(study)],
        lead=lead,
    )


def _front(study: Study, names: list[str]) -> list[str]:
    """The students that no other one beats on both counts, the most useful first."""
    cost = {n: (study.models[n].utility["perplexity"], study.auc(n)["auc"]) for n in names}
    beaten = {n for n in names for o in names if o != n and cost[o][0] <= cost[n][0] and cost[o][1] < cost[n][1]}
    return sorted((n for n in names if n not in beaten), key=lambda n: cost[n][0])


def _matched(study: Study) -> list[Block]:
    """The sweep over learning rates: leak against perplexity, and the ranking at one perplexity."""
    sweeps = {name: points for name, points in curves(study).items() if len(points) > 1}
    start = Heading("At equal usefulness")
    if not sweeps:
        return [start, Absent(f"Not run: to compare the techniques at one perplexity, {COMMAND}.")]
    series = {
        name: (
            [point.perplexity for point in points],
            [Estimate(point.leak.value, Contrast.of("", point.leak).interval) for point in points],
        )
        for name, points in sweeps.items()
    }
    drawn = charts.curves(
        series, xlabel="held-out perplexity (left is better)", ylabel=f"AUC of {study.attack}", log_x=True
    )
    rates = sorted({point.multiplier for points in sweeps.values() for point in points})
    caption = f"Each technique at {listed([f'{rate:g}' for rate in rates])} times its recipe's learning rate."
    matched = match(sweeps)
    if matched is None:
        return [start, Chart(drawn, caption), Absent("No two techniques pass one perplexity: sweep more rates.")]
    order = sorted(matched.leaks, key=lambda name: -matched.leaks[name].value)
    recipe = {name: p.leak for name in order for p in sweeps[name] if p.multiplier == 1}
    ranked = sorted(recipe, key=lambda name: -recipe[name].value)
    rows = [
        [str(place), label(name), _auc(matched.leaks[name]), _auc(recipe[name]) if name in recipe else "",
         str(ranked.index(name) + 1) if name in ranked else ""]
        for place, name in enumerate(order, 1)
    ]  # fmt: skip
    header = ("place", "technique", f"AUC at perplexity {matched.perplexity:.3g}", "AUC at the recipe", "place there")
    note = "AUC is interpolated in log perplexity between neighbouring rates, on the branch where a higher rate still "
    note += "teaches; intervals are those of the records, perplexity is taken as known."
    if matched.left_out:
        note += " Left out: " + "; ".join(f"{label(name)}, {why}" for name, why in matched.left_out.items()) + "."
    return [start, Chart(drawn, caption), Table(header, rows, words=2), Paragraph(note)]


def _auc(leak: Leak) -> str:
    return with_interval(leak.value, Contrast.of("", leak).interval)
