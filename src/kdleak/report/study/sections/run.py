"""What was run: the parameters that decide the figures, each recipe, and where the time went."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kdleak.core.paths import BASELINE
from kdleak.distill.techniques import TECHNIQUES
from kdleak.render.page import Html, Section, absent, code, details, heading, table
from kdleak.render.palette import label
from kdleak.render.wording import listed, seconds

if TYPE_CHECKING:
    from kdleak.report.study.results import Study

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


def what_was_run(study: Study) -> Section:
    params = study.params
    sizes, repetitions = params.data.sizes, params.canaries.repetitions
    facts = [
        ("data", f"{params.data.source}: {sizes.private} private (members), {sizes.public} public, {sizes.heldout} "
                 f"held out (non-members), {sizes.auxiliary} auxiliary, {sizes.population} population"),
        ("models", f"{params.model.family}, student {params.model.student}"),
        ("seed", params.seed),
        ("teacher", f"{params.teacher.epochs} epochs on private at a learning rate of {params.teacher.lr:g}"),
        ("canaries", f"{params.canaries.each} secrets each, planted {listed([str(n) for n in repetitions])} times"),
        ("protocol", params.kd.protocol),
        ("headline attack", code(params.report.headline)),
        ("attacks", Html(" ".join(code(attack) for attack in params.audit.attacks))),
    ]  # fmt: skip
    return Section(
        "What was run",
        [
            table(("", ""), facts, words=2),
            heading("Recipes"),
            table(_RECIPE, _recipes(study), words=3),
            heading("Seconds of each stage"),
            *_seconds(study),
        ],
    )


def _recipes(study: Study) -> list[list[object]]:
    rows = []
    for name in [BASELINE, *study.params.study.methods]:
        technique, training = TECHNIQUES[name], study.models[name].training
        text, loss = technique.text.value, technique.loss
        made = ["not run", "", ""]
        if training:
            text, loss = training["text"], training["loss"]
            made = [f"{training['lr']:g}", str(training["epochs"]), str(training["batch_size"])]
        rows.append([label(name), _TEXTS.get(text, text), code(loss), *made])
    return rows


def _seconds(study: Study) -> list[Html]:
    """Where the time went, by stage, the longest first."""
    if not study.seconds:
        return [absent("No stage was run in this folder: its results were made elsewhere.")]
    whole = {name: took for name, took in study.seconds.items() if ": " not in name}
    by_stage: dict[str, list[float]] = {}
    for name, took in study.seconds.items():
        stage, _, part = name.partition(": ")
        kind = _MODEL.split(stage)[0]
        by_stage.setdefault(f"{kind}: {part}" if part else kind, []).append(took)
    rows = [
        [code(stage), str(len(took)), seconds(sum(took)), seconds(max(took))]
        for stage, took in sorted(by_stage.items(), key=lambda item: -sum(item[1]))
    ]
    rows.append(["all stages", str(len(whole)), seconds(sum(whole.values())), ""])
    each = sorted(study.seconds.items(), key=_by_time)
    return [
        table(("stage", "runs", "together", "longest"), rows),
        details("Every run", table(("run", ""), [[code(name), seconds(took)] for name, took in each])),
    ]


def _by_time(item: tuple[str, float]) -> float:
    return -item[1]
