"""Which defences cost less utility for the same leak: dominated points, the hull, and comparisons at equal utility.

A leak is |AUC − ½| + ½, since an attack that ranks non-members higher tells as much. Utility is held-out perplexity,
lower is better; it is taken as known. The controls (no defence, early stopping, regularisation, and the no-KD student,
which heard no teacher) make a line through those of them that none of the others dominates; between two of them leak is
interpolated in log perplexity. A defence is compared with the line at its own perplexity, on the same records.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from kdleak.stats.auc import holm
from kdleak.stats.contrasts import ALPHA, Contrast
from kdleak.stats.delong import Leak
from kdleak.stats.trainings import MeanLeak

BETTER, WORSE, SAME, APART = "better", "worse", "no difference", "not comparable"


@dataclass(frozen=True)
class Adaptive:
    """AUC of an attack that knows the defence, folded, over shadow models trained with it, and its standard error.

    looked_better_by: how much more of the undefended leak the defence seemed to take away where the same statistic was
    used without shadow models.
    """

    value: float
    error: float
    attack: str = ""
    looked_better_by: float = 0.0


@dataclass(frozen=True)
class Measured:
    """A defence at one strength, distilled by one method.

    leaks: attack -> folded leak of each training, by seed; a plain Leak is of a model that has one training.
    """

    name: str
    perplexity: float
    leaks: Mapping[str, MeanLeak | Leak]
    control: bool = False
    adaptive: Adaptive | None = None


@dataclass(frozen=True)
class Verdict:
    """What may be said of a defence beside the controls at its perplexity.

    says:       BETTER or WORSE where that holds by every attack at a level of 5 % after Holm; SAME; APART.
    beside:     controls that the line was interpolated between, with their weights.
    difference: attack -> controls' leak minus its own: above 0 it leaks less.
    p_holm:     the largest p of the attacks (intersection-union test), Holm-adjusted over all points.
    detectable: the smallest difference that would have been seen, by the attack with the largest error.
    adaptive:   whether an attack that knows the defence is among the attacks.
    """

    says: str
    beside: Mapping[str, float] = field(default_factory=dict)
    difference: Mapping[str, Contrast] = field(default_factory=dict)
    p_holm: float | None = None
    detectable: float | None = None
    adaptive: bool = False


def folded(leak: Leak) -> Leak:
    """|AUC − ½| + ½: of an AUC below one half, that of the negated scores."""
    return leak if leak.value >= 0.5 else Leak(1 - leak.members, 1 - leak.nonmembers, leak.groups)


def dominated(cost: Mapping[str, tuple[float, float]]) -> set[str]:
    """Names of the points (perplexity, leak) that another one is at most as costly as on both, and less on one."""
    return {
        name
        for name, own in cost.items()
        if any(other[0] <= own[0] and other[1] <= own[1] and other != own for other in cost.values())
    }


def hull(cost: Mapping[str, tuple[float, float]]) -> list[str]:
    """The lower left convex hull of (log perplexity, leak), from the most useful to the safest: what can be had by
    choosing between two points at random."""
    standing = dominated(cost)
    order = sorted((name for name in cost if name not in standing), key=lambda name: cost[name])
    corners: list[str] = []
    for name in order:
        while len(corners) > 1 and _turn(*(cost[each] for each in (*corners[-2:], name))) <= 0:
            corners.pop()
        if not corners or cost[corners[-1]] != cost[name]:
            corners.append(name)
    return corners


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    """Above 0 where the way from a over b to c turns left."""
    (ax, ay), (bx, by), (cx, cy) = ((math.log(x), y) for x, y in (a, b, c))
    return (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)


def controls_line(points: Sequence[Measured], attack: str) -> list[Measured]:
    """The controls that none of them dominates by `attack`, by rising perplexity."""
    controls = {point.name: point for point in points if point.control}
    worse = dominated({name: (point.perplexity, point.leaks[attack].value) for name, point in controls.items()})
    return sorted((p for name, p in controls.items() if name not in worse), key=lambda p: p.perplexity)


def at(line: Sequence[Measured], perplexity: float) -> dict[str, float]:
    """Weights of the controls whose mixture has this perplexity; of one that is better than all of them, the best one
    alone; nothing where it is worse than all of them."""
    for left, right in pairwise(line):
        if left.perplexity <= perplexity <= right.perplexity:
            share = math.log(perplexity / left.perplexity) / math.log(right.perplexity / left.perplexity)
            return {name: w for name, w in ((left.name, 1 - share), (right.name, share)) if w > 0}
    return {line[0].name: 1.0} if line and perplexity <= line[0].perplexity else {}


def compared(points: Sequence[Measured], attack: str) -> dict[str, Verdict]:
    """Of each point that is no control, what may be said of it. attack: by which the controls make their line."""
    line, by_name = controls_line(points, attack), {point.name: point for point in points}
    tried = {}
    for point in points:
        weights = {} if point.control else at(line, point.perplexity)
        if weights:
            tried[point.name] = weights, _contrasts(point, weights, by_name)
    adjusted = holm([_joint(contrasts) for _, contrasts in tried.values()]) if tried else []
    found = {point.name: Verdict(APART) for point in points if not point.control}
    for (name, (weights, contrasts)), p in zip(tried.items(), adjusted, strict=True):
        above = all(each.value > 0 for each in contrasts.values())
        says = SAME if p >= ALPHA else BETTER if above else WORSE
        visible = max(each.detectable(len(tried)) for each in contrasts.values())
        adaptive = "adaptive" in contrasts
        found[name] = Verdict(says, weights, contrasts, float(p), visible, adaptive)
    return found


def _contrasts(point: Measured, weights: Mapping[str, float], by_name: Mapping[str, Measured]) -> dict[str, Contrast]:
    """Attack -> the controls' leak at the point's perplexity minus its own."""
    found = {}
    for attack, own in point.leaks.items():
        mixed = own * -1.0
        for name, weight in weights.items():
            mixed = _added(mixed, by_name[name].leaks[attack] * weight)
        found[attack] = Contrast.of(point.name, mixed)
    beside = {name: by_name[name].adaptive for name in weights}
    if point.adaptive is not None and all(each is not None for each in beside.values()):
        parts = [(weights[name], each) for name, each in beside.items() if each is not None]
        value = sum(w * each.value for w, each in parts) - point.adaptive.value
        error = math.sqrt(sum((w * each.error) ** 2 for w, each in parts) + point.adaptive.error**2)
        found["adaptive"] = Contrast(point.name, value, error, 0)
    return found


def _added(own: MeanLeak | Leak, control: MeanLeak | Leak) -> MeanLeak | Leak:
    """A sum of leaks, paired by seed where either has several trainings."""
    if isinstance(own, Leak) and isinstance(control, MeanLeak):
        return control + own
    return own + control  # type: ignore[operator]


def _joint(contrasts: Mapping[str, Contrast]) -> float:
    """p of a difference that all attacks see with the same sign; 1 where their signs differ."""
    signs = {math.copysign(1, each.value) for each in contrasts.values()}
    return max(each.p_value for each in contrasts.values()) if len(signs) == 1 else 1.0
