"""What was run: the parameters that decide the figures and each recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.core.paths import BASELINE
from kdleak.defend.accountant import in_words
from kdleak.distill.recipes import recipe
from kdleak.render.blocks import Code, Heading, Marked, Table
from kdleak.render.palette import label
from kdleak.render.wording import listed
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
_RECIPE = ("technique", "learns from", "minimises", "learning rate", "epochs", "batch")


@section("What was run", order=130)
def what_was_run(report: Report) -> Content:
    study, params = report.study, report.study.params
    sizes, repetitions = params.data.sizes, params.canaries.repetitions
    facts = [
        ("data", f"{params.data.source}: {sizes.private} private (members), {sizes.public} public, {sizes.heldout} "
                 f"held out (non-members), {sizes.auxiliary} auxiliary, {sizes.population} population"),
        ("models", f"{params.model.family}, student {params.model.student}"),
        ("seed", params.seed),
        ("teacher", f"{params.teacher.epochs} epochs on private at a learning rate of {params.teacher.lr:g}"),
        ("canaries", f"{params.canaries.each} secrets each, planted {listed([str(n) for n in repetitions])} times"),
        ("protocol", params.kd.protocol),
        ("headline attack", Code(params.report.headline)),
        ("attacks", Marked(" ".join(f"`{attack}`" for attack in params.audit.attacks))),
    ]  # fmt: skip
    facts += [("defence", words) for words in _defences(study)]
    return Content(
        [
            Table(("", ""), facts, words=2),
            Heading("Recipes"),
            Table(_RECIPE, _recipes(study), words=3),
        ],
    )


def _defences(study: Study) -> list[str]:
    """What each model that was trained under a defence has of it: its knobs, its ε and whose records that covers."""
    found = []
    for name, model in study.models.items():
        if defence := (model.training or {}).get("defence"):
            said = f"{label(name)}: {defence['name']} on the {defence['acts_on']}"
            said += "".join(f", {knob} {value}" for knob, value in defence["knobs"].items() if value is not None)
            found.append(f"{said}; {in_words(defence)}" if "epsilon" in defence else said)
    return found


def _recipes(study: Study) -> list[list[object]]:
    rows = []
    for name in [BASELINE, *study.params.study.methods]:
        options, training = recipe(name, study.params.kd), study.models[name].training
        text, loss = options.text.value, options.loss
        realised = ["not run", "", ""]
        if training:
            text, loss = training["text"], training["loss"]
            realised = [f"{training['lr']:g}", str(training["epochs"]), str(training["batch_size"])]
        rows.append([label(name), _TEXTS.get(text, text), Code(loss), *realised])
    return rows
