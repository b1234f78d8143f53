"""Leak at equal usefulness: what each technique gives away where all have learned equally well.

The published learning rates differ by a factor of 100, so a technique may leak least because it learned least. A sweep
over learning rates makes a curve for each technique, leak against held-out perplexity; techniques are compared where
the curves pass one perplexity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from kdleak.report.study.findings import METRICS, View
from kdleak.stats.contrasts import Leak, leaks

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.report.study.results import Study


@dataclass(frozen=True)
class Point:
    """One student: its learning rate as a multiple of the recipe's, its usefulness, its leak."""

    multiplier: float
    perplexity: float
    rouge_l: float
    leak: Leak


@dataclass(frozen=True)
class Matched:
    """Leaks at one perplexity. left_out: technique -> why it has none."""

    perplexity: float
    leaks: Mapping[str, Leak]
    left_out: Mapping[str, str]


def curves(study: Study, view: View | None = None) -> dict[str, list[Point]]:
    """Technique -> its students by rising learning rate, the recipe's own (multiplier 1) among them; their leak by
    `view` (default: AUC of the headline attack)."""
    tables: dict[tuple[str, float], pd.DataFrame] = {}
    useful: dict[tuple[str, float], Mapping[str, Any]] = {}
    for method in study.techniques:
        model = study.models[method]
        if model.scores is not None and model.utility is not None:
            tables[method, 1.0], useful[method, 1.0] = model.scores, model.utility
    for run, trial in study.trials.items():
        if run.rate is not None and trial.scores is not None and trial.utility is not None:
            tables[run.method, run.rate], useful[run.method, run.rate] = trial.scores, trial.utility
    view = view or View(study.attack)
    found = leaks(study.grouped(tables), view.attack, METRICS[view.metric])
    sweeps: dict[str, list[Point]] = {}
    for method, multiplier in sorted(found, key=lambda key: key[1]):
        utility = useful[method, multiplier]
        point = Point(multiplier, utility["perplexity"], utility["rouge_l"], found[method, multiplier])
        sweeps.setdefault(method, []).append(point)
    return {method: sweeps[method] for method in study.techniques if method in sweeps}


def learning_branch(points: Sequence[Point]) -> list[Point]:
    """The part of a curve on which a higher rate still teaches: from the lowest rate to the best perplexity, without
    points that are no better than the one before. Beyond it the student leaks more and is worth less."""
    branch: list[Point] = []
    for point in points:
        if not branch or point.perplexity < branch[-1].perplexity:
            branch.append(point)
    return branch


def at_perplexity(branch: Sequence[Point], perplexity: float) -> Leak | None:
    """The leak where the branch passes `perplexity`: linear between neighbours in log perplexity; None outside.

    The interpolation's weights are taken as known: the leak's error is that of the two AUCs, on the same records.
    """
    for point in branch:
        if math.isclose(point.perplexity, perplexity, rel_tol=1e-12):
            return point.leak
    for worse, better in pairwise(branch):
        if better.perplexity < perplexity < worse.perplexity:
            share = math.log(worse.perplexity / perplexity) / math.log(worse.perplexity / better.perplexity)
            return worse.leak * (1 - share) + better.leak * share
    return None


def match(sweeps: Mapping[str, Sequence[Point]]) -> Matched | None:
    """Leaks at the perplexity that most techniques pass, the best such; None where fewer than two techniques meet."""
    branches = {method: learning_branch(points) for method, points in sweeps.items() if len(points) > 1}
    reached = [branch[-1].perplexity for branch in branches.values()]
    found = [(target, _passing(branches, target)) for target in reached]
    target, passing = max(found, key=lambda each: (len(each[1]), -each[0]), default=(math.nan, {}))
    if len(passing) < 2:
        return None
    left_out = {method: _why(branches.get(method, []), target) for method in sweeps if method not in passing}
    return Matched(target, passing, left_out)


def _passing(branches: Mapping[str, Sequence[Point]], perplexity: float) -> dict[str, Leak]:
    found = {method: at_perplexity(branch, perplexity) for method, branch in branches.items()}
    return {method: leak for method, leak in found.items() if leak is not None}


def _why(branch: Sequence[Point], perplexity: float) -> str:
    if not branch:
        return "one learning rate only"
    if branch[0].perplexity < perplexity:
        return f"better at every rate of the sweep ({branch[0].perplexity:.3g} at the lowest)"
    return f"worse at every rate of the sweep ({branch[-1].perplexity:.3g} at best)"
