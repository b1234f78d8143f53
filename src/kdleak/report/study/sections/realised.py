"""What each technique came to: how much of its text the student wrote, and how old that was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kdleak.render.blocks import Absent, Paragraph, Table
from kdleak.render.palette import label
from kdleak.render.wording import COUNTS, REALISED, UNKNOWN, listed, number, percent
from kdleak.report.study.sections import Content, section

if TYPE_CHECKING:
    from kdleak.report.study.results import Model
    from kdleak.report.study.sections import Report


@section("What the techniques did", order=25)
def what_techniques_did(report: Report) -> Content:
    study = report.study
    trained = {name: study.models[name] for name in study.params.study.methods if study.models[name].training}
    shown = {name: model for name, model in trained.items() if model.training.get("realised")}
    if not shown:
        return Content([Absent("No student's training.json says what its technique came to (`dvc repro -P`).")])
    rows = [
        [label(name), *(_figure(model.training["realised"], key) for key in REALISED), _ran(model)]
        for name, model in shown.items()
    ]
    absent = {label(name): model.mechanism_absent for name, model in shown.items() if model.mechanism_absent}
    lead = "Every technique's defining mechanism ran."
    if absent:
        lead = f"Of {listed(list(absent))} there is no verdict. {'. '.join(absent.values())}."
    words = (
        "student-written: share of the response tokens trained on that the student wrote; replayed: share of its texts "
        "that were written at an earlier step; rollout rounds: times that it wrote; oldest text: its age in optimizer "
        "steps; threshold: DistiLLM's share at the end."
    )
    return Content(
        [Table(("technique", *REALISED.values(), "its mechanism"), rows), Paragraph(words)],
        lead,
        lead if absent else "",
    )


def _figure(realised: Mapping[str, float | None], key: str) -> str:
    value = realised.get(key)
    if value is None:
        return UNKNOWN
    return (
        number(value, 0) if REALISED[key] in COUNTS else percent(value) if key.endswith("share") else number(value, 2)
    )


def _ran(model: Model) -> str:
    return model.mechanism_absent or "ran"
