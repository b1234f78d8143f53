"""The runs that differ from the default ones in one thing; and how far trainings of one technique differ."""

from __future__ import annotations

from statistics import mean, stdev
from typing import TYPE_CHECKING

from kdleak.core.variants import Variant
from kdleak.render.blocks import Absent, Block, Code, Heading, Paragraph, Table
from kdleak.render.palette import label
from kdleak.render.wording import listed, number, percent
from kdleak.report.headline import best_tpr
from kdleak.report.study.sections import Content, section
from kdleak.report.study.sections.grids import auc, perplexity, shown_auc

if TYPE_CHECKING:
    from kdleak.report.study.results import Model, Study
    from kdleak.report.study.sections import Report

_COMMAND = "run `dvc exp run -P -S 'study.seeds=[1,2]'`"


@section("One thing changed", order=105)
def one_thing_changed(report: Report) -> Content:
    """The runs of the lists in section study, each below the technique that it differs from in one thing."""
    study = report.study
    methods = [name for name in study.techniques if any(run.method == name for run in study.trials)]
    rows = []
    for name in methods:
        rows.append(_row(study, Variant(name), study.models[name]))
        rows += [_row(study, run, model) for run, model in study.trials.items() if run.method == name]
    header = ("technique", "changed", f"AUC of {study.attack}", "best TPR at 1 % FPR", "by", "held-out perplexity",
              "student-written", "its mechanism")  # fmt: skip
    shown: list[Block] = [Absent("No run differs from the default ones: the lists of section study are empty.")]
    if rows:
        shown = [Table(header, rows, words=2)]
        shown += [Paragraph("The best of several attacks is picked after the fact: read it as a range's upper end.")]
    return Content([*shown, Heading("Between trainings"), *_trainings(study)])


def _row(study: Study, run: Variant, model: Model) -> list[object]:
    attack = best_tpr(model.membership)
    share = ((model.training or {}).get("realised") or {}).get("student_token_share")
    return [
        label(run.method), Code(run.name) if run.name else "", shown_auc(study, model),
        percent(model.membership["attacks"][attack]["tpr_at_fpr"]["0.01"]), Code(attack), perplexity(model),
        percent(share), model.mechanism_absent or "ran",
    ]  # fmt: skip


def _trainings(study: Study) -> list[Block]:
    """Per technique the AUC of the headline attack over seeds: mean and standard deviation between trainings."""
    rows, seeds = [], sorted({run.seed for run in study.trials if run.seed is not None})
    for name in study.techniques:
        runs: dict[int | None, Model] = {study.params.seed: study.models[name]}
        runs |= {run.seed: model for run, model in study.trials.items() if run.method == name and run.seed is not None}
        values = [auc(study, model)["auc"] for model in runs.values() if auc(study, model)]
        if len(values) > 1:
            each = ", ".join(number(value) for value in values)
            rows.append([label(name), each, number(mean(values)), number(stdev(values), 4)])
    if not rows:
        return [Absent(f"One training of each: {_COMMAND}, and findings hold for more than one.")]
    words = f"Seeds {listed([str(seed) for seed in [study.params.seed, *seeds]])}, the same teacher and no-KD student."
    return [Table(("technique", f"AUC of {study.attack}", "mean", "sd between trainings"), rows), Paragraph(words)]
