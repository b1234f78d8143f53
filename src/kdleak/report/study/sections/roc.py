"""ROC curves of the headline attack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kdleak.core.paths import BASELINE, TEACHER
from kdleak.render.blocks import Absent, Chart, SideBySide
from kdleak.render.roc import roc
from kdleak.report.study.results import PAPER_TECHNIQUES
from kdleak.report.study.sections import Content, section
from kdleak.stats import roc_curve

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.report.study.sections import Report


@section("Few false accusations", order=40)
def roc_curves(report: Report) -> Content:
    """The curves of the headline attack on logarithmic axes, where a leak of a few records shows."""
    study = report.study
    names = [n for n, model in study.models.items() if model.scores is not None and study.attack in model.scores]
    if not names:
        return Content([Absent("No scores.parquet is in this folder; `dvc pull` or `dvc repro -P` bring them.")])
    curves, floor = {}, 1.0
    for name in names:
        members, nonmembers = _sides(study.models[name].scores, study.attack)
        curves[name] = roc_curve(members, nonmembers)
        floor = min(floor, 1 / max(1, len(nonmembers)))
    paper = {name: curve for name, curve in curves.items() if name in (TEACHER, BASELINE, *PAPER_TECHNIQUES)}
    others = {name: curve for name, curve in curves.items() if name in (TEACHER, BASELINE) or name not in paper}
    drawings = [Chart(roc(paper, floor, title="the paper's techniques"), f"Attack: {study.attack}.")]
    if len(others) > 2:
        drawings.append(Chart(roc(others, floor, title="objectives alone"), f"Attack: {study.attack}."))
    lead = (
        "An attacker who may accuse only a few innocent records cares for the left edge of these curves; linear axes "
        "would hide it. Left of one non-member (the axis' end) nothing can be measured."
    )
    return Content([SideBySide(*drawings)], lead=lead)


def _sides(scores: pd.DataFrame, attack: str) -> tuple[np.ndarray, np.ndarray]:
    defined = scores[np.isfinite(scores[attack])]
    return tuple(defined.loc[defined["role"] == role, attack].to_numpy() for role in ("private", "heldout"))
