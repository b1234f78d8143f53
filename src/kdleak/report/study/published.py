"""The paper's own figures (published.json), to stand beside ours.

Zhang et al., EMNLP 2025 (arXiv 2508.07054), read off the heatmaps published beside the authors' code: two significant
digits, AUC flipped to at least .5, one seed, no intervals.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak.core.paths import BASELINE, TEACHER
from kdleak.stats.correlation import spearman

if TYPE_CHECKING:
    from kdleak.models.families import Family
    from kdleak.stats.contrasts import Leak

#: (layers, width) of the paper's models: teacher, and students by size.
_TEACHERS = {"gpt2": (48, 1600), "opt": (32, 2560)}
_STUDENTS = {
    "gpt2": {"large": (36, 1280), "medium": (24, 1024), "base": (12, 768)},
    "opt": {"1.3b": (24, 2048), "350m": (24, 1024), "125m": (12, 768)},
}
#: Their names for what we call otherwise.
_NAMES = {BASELINE: "no_kd"}


@dataclass(frozen=True)
class Published:
    """The paper's figures for one family and student size."""

    family: str
    size: str
    reason: str

    @property
    def source(self) -> str:
        return _content()["source"]

    def auc(self, model: str, attack: str) -> float:
        """AUC of an attack on a model of ours; NaN where the paper has none."""
        if model == TEACHER:
            return _content()["teacher_membership_auc"][self.family].get(attack, math.nan)
        figures = _content()["membership_auc"][self.family][self.size]
        return figures.get(_NAMES.get(model, model), {}).get(attack, math.nan)

    @property
    def attacks(self) -> list[str]:
        return list(_content()["membership_auc"][self.family][self.size]["kd"])

    def figure(self, kind: str, model: str) -> float:
        """`memorization_accuracy`, `memorization_gap_abs` or `student_rouge_l` of a student; NaN if there is none."""
        return _content()[kind][self.family][self.size].get(_NAMES.get(model, model), math.nan)


def closest(family: Family, name: str, size: str) -> Published:
    """The paper's family and student size that are nearest to the student `size` of the family called `name`: the size
    whose blocks (layers x width squared) are a share of its teacher's that is nearest to our student's share."""
    theirs = "opt" if name.startswith("opt") else "gpt2"
    sizes = _STUDENTS[theirs]
    share = _share(family, size)
    if share is None:  # weights from a hub
        return Published(theirs, size, "the same") if size in sizes else Published(theirs, list(sizes)[1], "the middle")
    shares = {name: _cost(shape) / _cost(_TEACHERS[theirs]) for name, shape in sizes.items()}
    nearest = min(shares, key=lambda name: abs(math.log(shares[name] / share)))
    theirs_share, ours = (f"{100 * value:.0f} %" for value in (shares[nearest], share))
    reason = f"{theirs_share} of its teacher's blocks, the share nearest to our student's {ours}"
    return Published(theirs, nearest, reason)


@dataclass(frozen=True)
class Agreement:
    """Spearman's rho between our AUCs and the paper's, with a 95 % interval from the uncertainty of ours."""

    value: float
    low: float
    high: float
    cells: int


def agreement(ours: Mapping[tuple[str, str], Leak], published: Published, seed: int, draws: int = 2000) -> Agreement:
    """Rank correlation over the cells (model, attack) that both have.

    The interval is of draws from a normal with DeLong's covariance of our AUCs: it says how sure our ranks are. The
    paper's figures have no interval and are taken as they stand.
    """
    cells = [cell for cell in ours if math.isfinite(published.auc(*cell))]
    if len(cells) < 3:
        return Agreement(math.nan, math.nan, math.nan, len(cells))
    theirs = np.array([published.auc(*cell) for cell in cells])
    values = np.array([ours[cell].value for cell in cells])
    drawn = np.random.default_rng(seed).multivariate_normal(values, _covariance([ours[c] for c in cells]), draws)
    low, high = np.nanquantile([spearman(row, theirs) for row in drawn], [0.025, 0.975])
    return Agreement(spearman(values, theirs), float(low), float(high), len(cells))


def _covariance(leaks: Sequence[Leak]) -> np.ndarray:
    sides = [leak.members for leak in leaks], [leak.nonmembers for leak in leaks]
    members, nonmembers = (np.atleast_2d(np.cov(np.stack(side))) / len(side[0]) for side in sides)
    return members + nonmembers


def _share(family: Family, size: str) -> float | None:
    """Our student's blocks as a share of our teacher's; None where the weights are not made here."""
    teacher, student = _shape(family.teacher), _shape(family.students.get(size))
    return None if teacher is None or student is None else _cost(student) / _cost(teacher)


def _shape(part: Any) -> tuple[int, int] | None:
    config = getattr(part, "scratch", None) or {}
    layers = config.get("n_layer") or config.get("num_hidden_layers")
    width = config.get("n_embd") or config.get("hidden_size")
    return (layers, width) if layers and width else None


def _cost(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1] ** 2


@cache
def _content() -> dict[str, Any]:
    return json.loads(resources.files("kdleak.report.study").joinpath("published.json").read_text(encoding="utf-8"))
