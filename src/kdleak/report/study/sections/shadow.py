"""What teachers on halves of the records, and their students, say: attacks with shadows, and what passes between."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kdleak.core.paths import BASELINE, TEACHER
from kdleak.render.blocks import Absent, Block, Callout, Paragraph, Table
from kdleak.render.palette import label
from kdleak.render.wording import percent, with_interval
from kdleak.report.study.sections import Content, section
from kdleak.shadow.report import settings_of

if TYPE_CHECKING:
    from kdleak.report.study.sections import Report


@section("By many trainings", order=88)
def by_many_trainings(report: Report) -> Content:
    """Attacks with shadow models beside those without, and the transfer coefficient of each technique."""
    found = report.study.shadow or {}
    if not found.get("models"):
        how = "No shadow models were trained (`dvc exp run -S shadow.models=16`); every figure rests on one training."
        return Content([Absent(how)])
    names = sorted(found["attacks"], key=lambda name: (name != TEACHER, name))
    rows = [_row(name, found["attacks"][name]) for name in names]
    own = settings_of(report.study.params)
    others = [f"{key} {found[key]}" for key, value in own.items() if found[key] != value]
    header = ("model", "AUC of loss", "AUC of ez", "best with shadows", "its AUC", "TPR at 1 % FPR", "at 0.1 %")
    trained = (
        f"{found['models']} teachers ({found['family']}, seed {found['seed']}), each on a random half of "
        f"{found['records']} records, and their students; each is attacked with the help of all but its complement. "
        "Intervals are over pairs of teachers: for other trainings on halves of these records."
    )
    blocks: list[Block] = [Paragraph(trained), Table(header, rows)]
    if others:
        blocks.insert(0, Callout(f"These models are of other settings than the rest of the page: {', '.join(others)}."))
    passed = [_passed(name, found) for name in found.get("transfer", {})]
    if passed:
        words = (
            "τ: what a student gains on a record by its teacher having had it, as a share of what the teacher gains."
        )
        columns = ("technique", "τ by log-likelihood", "τ by ez", "records correlate", "student under its teacher")
        blocks += [Paragraph(words), Table(columns, passed)]
    if found.get("barrier"):
        blocks += _barrier(found["barrier"])
    return Content(blocks, lead=_lead(found))


def _row(name: str, attacks: Mapping[str, Any]) -> list[str]:
    best = max((each for each in attacks if ":" in each), key=lambda each: attacks[each]["auc"]["value"])
    rates = [attacks[best][f"tpr_at_{fpr}"] for fpr in ("0.01", "0.001")]
    told = [percent(rate["value"]) if rate else "too few false positives" for rate in rates]
    return [label(name), _interval(attacks["loss"]["auc"]), _interval(attacks["ez"]["auc"]), best.replace(":", ", "),
            _interval(attacks[best]["auc"]), *told]  # fmt: skip


def _passed(name: str, found: Mapping[str, Any]) -> list[str]:
    by = found["transfer"][name]
    return [
        label(name),
        *(_interval(by[statistic]["tau"], 2) for statistic in ("loss", "ez")),
        f"{by['loss']['correlation']:.2f}" if by["loss"]["correlation"] is not None else "",
        found["processing"][name]["state"],
    ]


def _barrier(found: Mapping[str, Any]) -> list[Block]:
    """Students beside teachers that were stopped early or regularised, and are as useful."""
    words = (
        "Barrier or regulariser: Δ is the AUC (online LiRA on log-likelihood) of the control teacher that leaks least "
        "of those at least as useful as the student, less the student's. Above zero distillation keeps back what no "
        "such teacher does; below zero such a teacher is the better choice. Usefulness is perplexity on records that a "
        "model was not trained on, of the mean record."
    )
    kinds = list(next(iter(found["students"].values()))["against"])
    told = sorted(found["arms"].items(), key=lambda each: -each[1]["usefulness"])
    arms = [[_arm(name), f"{_perplexity(each['usefulness']):.1f}", f"{each['leak']:.3f}"[1:]] for name, each in told]
    rows = [
        [
            label(name),
            f"{_perplexity(each['usefulness']['value']):.1f}",
            f"{each['leak']['value']:.3f}"[1:],
            *(_net(each["against"][kind]) for kind in kinds),
        ]
        for name, each in found["students"].items()
    ]
    return [
        Paragraph(words),
        Table(("teacher", "perplexity", "AUC"), arms),
        Table(("student", "perplexity", "AUC", *(f"Δ against {kind}" for kind in kinds)), rows),
    ]


def _arm(name: str) -> str:
    return label(name) if "=" not in name else name.replace("=", ", ")


def _perplexity(usefulness: float) -> float:
    return math.exp(-usefulness)


def _net(against: Mapping[str, Any] | None) -> str:
    return "none is as useful" if against is None else f"{_interval(against['net'])} ({_arm(against['arm'])})"


def _lead(found: Mapping[str, Any]) -> str:
    taus = {name: by["loss"]["tau"] for name, by in found.get("transfer", {}).items() if name != BASELINE}
    if not taus:
        return ""
    most = max(taus, key=lambda name: taus[name]["value"])
    return f"Of what a teacher learns of a record, {label(most)} passes on {_interval(taus[most], 2)}."


def _interval(estimate: Mapping[str, float], digits: int = 3) -> str:
    return with_interval(estimate["value"], (estimate["low"], estimate["high"]), digits)
