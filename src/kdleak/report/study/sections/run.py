"""What was run: the parameters that decide the figures, each recipe, and where the time went."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kdleak.core.paths import BASELINE
from kdleak.distill.techniques import TECHNIQUES
from kdleak.render.blocks import Absent, Block, Code, Details, Heading, Marked, Table
from kdleak.render.palette import label
from kdleak.render.wording import listed, seconds
from kdleak.report.study.sections import Content, section

if TYPE_CHECKING:
    from kdleak.report.study.results import Study
    from kdleak.report.study.sections import Report

_TEXTS = {
    "references": "the records' own responses",
    "teacher": "the teacher's responses",
    "mixed": "its own responses, in part",
    "adaptive": "its own responses, an adaptive share",
    "policy": "its own responses, sampled with the teacher",
}
#: measure-teacher, measure@kd: one kind of stage
_MODEL = re.compile("[@-]")
_RECIPE = ("technique", "learns from", "minimises", "learning rate", "epochs", "batch")


@section("What was run", order=130)
def what_was_run(report: Report) -> Content:
    study, params = report.study, report.study.params
    sizes, repetitions = params.data.sizes, params.canaries.repetitions
    facts = [
        ("data", f"{params.data.source}: {sizes.private} private (members), {sizes.public} public, {sizes.heldout} "
                 f"held out (non-members), {sizes.auxiliary} auxiliary records"),
        ("models", f"{params.model.family}, student {params.model.student}"),
        ("seed", params.seed),
        ("teacher", f"{params.teacher.epochs} epochs on private at a learning rate of {params.teacher.lr:g}"),
        ("canaries", f"{params.canaries.each} secrets each, planted {listed([str(n) for n in repetitions])} times"),
        ("protocol", params.kd.protocol),
        ("headline attack", Code(params.audit.headline)),
        ("attacks", Marked(" ".join(f"`{attack}`" for attack in params.audit.attacks))),
    ]  # fmt: skip
    return Content(
        [
            Table(("", ""), facts, words=2),
            Heading("Recipes"),
            Table(_RECIPE, _recipes(study), words=3),
            Heading("Seconds of each stage"),
            *_seconds(study),
        ],
    )


def _recipes(study: Study) -> list[list[object]]:
    rows = []
    for name in [BASELINE, *study.params.study.methods]:
        technique, training = TECHNIQUES[name], study.models[name].training
        text, loss = technique.text.value, technique.loss
        realised = ["not run", "", ""]
        if training:
            text, loss = training["text"], training["loss"]
            realised = [f"{training['lr']:g}", str(training["epochs"]), str(training["batch_size"])]
        rows.append([label(name), _TEXTS.get(text, text), Code(loss), *realised])
    return rows


def _seconds(study: Study) -> list[Block]:
    """Where the time went, by stage, the longest first."""
    if not study.seconds:
        return [Absent("No stage was run in this folder: its results were made elsewhere.")]
    stages = {name: took for name, took in study.seconds.items() if ": " not in name}
    by_stage: dict[str, list[float]] = {}
    for name, took in study.seconds.items():
        stage, _, part = name.partition(": ")
        kind = _MODEL.split(stage)[0]
        by_stage.setdefault(f"{kind}: {part}" if part else kind, []).append(took)
    rows = [
        [Code(stage), str(len(took)), seconds(sum(took)), seconds(max(took))]
        for stage, took in sorted(by_stage.items(), key=lambda item: -sum(item[1]))
    ]
    rows.append(["all stages", str(len(stages)), seconds(sum(stages.values())), ""])
    each = sorted(study.seconds.items(), key=_by_time)
    return [
        Table(("stage", "runs", "together", "longest"), rows),
        Details("Every run", Table(("run", ""), [[Code(name), seconds(took)] for name, took in each])),
    ]


def _by_time(item: tuple[str, float]) -> float:
    return -item[1]
