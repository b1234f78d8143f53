"""The paper's claims 1 to 3, on membership, each as a test on this study's records.

Every function takes the study and gives a Finding, by the rule of `findings`: every attack that judges, two metrics.
Where students were trained with several seeds, the mean over these is compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from kdleak.core.variants import BASELINE, Variant
from kdleak.render.palette import label
from kdleak.render.wording import listed, p_value, signed
from kdleak.report.study.claims import claim
from kdleak.report.study.conditions import recipe_conditions
from kdleak.report.study.findings import (
    AUC,
    CONTRADICTED,
    DEPENDS,
    INCONCLUSIVE,
    REPRODUCED,
    Compared,
    Finding,
    View,
    Views,
    attacks_of,
    by_pair,
    detectable,
    judged,
    not_measured,
    runs_of,
    tested_by,
    together,
    views_of,
)
from kdleak.stats.contrasts import Contrast, Leak
from kdleak.stats.trainings import MeanLeak

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.report.study.results import Study

MOST, LEAST = ("seqkd", "imitkd", "kd"), "minillm"
PAIRED = "paired on the same records by every attack that judges a claim, AUC and TPR at 1 % FPR"


@claim("1")
def every_technique_leaks(study: Study) -> Finding:
    """1. Each student lies above the no-KD student."""
    says = "Every technique leaks: each student's members are told better than the no-KD student's."
    own, caveat = themselves(study, study.claimed)
    views = views_of(tables_of(study, [*own, BASELINE]))
    compared = compare(views, [(name, BASELINE) for name in own])
    if not compared:
        return not_measured("1", says, PAIRED, f"No student beside the no-KD student yet. {caveat}".strip())
    verdicts = by_pair(compared)
    leaking = [name for name, verdict in verdicts.items() if verdict == REPRODUCED]
    answer = f"{len(leaking)} of {len(verdicts)} techniques leak more than the no-KD student."
    if together(compared) == REPRODUCED:
        by_auc = [c for c in compared if c.view and c.view.metric == AUC] or compared
        best = {name: max((c for c in by_auc if c.contrast.name == name), key=lambda c: c.contrast.value)
                for name in verdicts}  # fmt: skip
        least = min(best.values(), key=lambda c: c.contrast.value)
        if least.view is not None:
            answer += f" The least by {signed(least.contrast.value)} of {least.view.metric} ({least.contrast.name}, "
            answer += f"the most by {least.view.attack})."
    return finding("1", says, compared, views, answer, caveat=caveat)


@claim("2")
def techniques_differ(study: Study) -> Finding:
    """2. SeqKD, ImitKD and KD leak most, MiniLLM least."""
    own, caveat = themselves(study, study.claimed)
    says, views = "SeqKD, ImitKD and KD leak most, MiniLLM least.", views_of(tables_of(study, own))
    return ranking("2", says, views, caveat, recipe_conditions({name: study.models[name] for name in own}))


def ranking(claim: str, says: str, views: Views, caveat: str = "", conditional_on: Sequence[str] = ()) -> Finding:
    """Whether the leaks have the paper's order: MOST above the others, LEAST below them."""
    names = _names(views)
    top, middle = [n for n in MOST if n in names], [n for n in ("gkd", "distillm") if n in names]
    low = [LEAST] if LEAST in names else []
    pairs = [(a, b) for a in top for b in [*middle, *low]] + [(a, b) for a in middle for b in low]
    compared = compare(views, pairs)
    if not compared or not top or not low:
        return not_measured(claim, says, PAIRED, f"Not all techniques that the claim names have been run. {caveat}")
    if absent := [label(n) for n in MOST if n not in names]:
        conditional_on = [*conditional_on, f"without {listed(absent)}, which the claim names"]
    counts = Counter(by_pair(compared).values())
    first = next(view for view in views if view.metric == AUC)
    order = sorted(views[first], key=lambda name: -views[first][name].value)
    answer = f"By {first.attack} from most to least: {', '.join(label(n) for n in order)}. "
    answer += f"{counts[REPRODUCED]} of {counts.total()} pairs are significantly as claimed."
    if wrong := counts[CONTRADICTED]:
        reversed_ = [c for c in compared if by_pair(compared)[c.contrast.name] == CONTRADICTED]
        worst = min(reversed_, key=lambda c: c.contrast.value)
        answer += f" Reversed in {wrong}, most in {_measured(worst)}."
    if counts[DEPENDS]:
        answer += f" {counts[DEPENDS]} depend on the attack: {_opposed(compared)}."
    return finding(claim, says, compared, views, answer, {"auc": aucs(views)}, caveat, conditional_on)


@claim("3")
def objective_matters(study: Study) -> Finding:
    """3. Reverse KL leaks less than forward KL."""
    names = [n for n in ("kd", "rkl") if n in study.techniques]
    views = views_of(tables_of(study, names))
    says = "Reverse KL leaks less than forward KL."
    grid = recipe_conditions({name: study.models[name] for name in names})
    return reverse_below_forward("3", says, views, conditional_on=grid)


def reverse_below_forward(
    claim: str, says: str, views: Views, caveat: str = "", conditional_on: Sequence[str] = ()
) -> Finding:
    """The two objectives alone, on the same data from the same start."""
    compared = compare(views, [("kd", "rkl")])
    if not compared:
        reason = "Needs both `kd` (forward KL) and `rkl` (reverse KL) on the same data."
        return not_measured(claim, says, PAIRED, reason)
    answer = "Forward KL over reverse KL: " + by_view(compared) + "."
    return finding(claim, says, compared, views, answer, caveat=caveat, conditional_on=conditional_on)


def over(first: str, second: str) -> str:
    return f"{label(first)} over {label(second)}"


def difference(areas: Mapping[Any, Any], first: object, second: object, name: str) -> Contrast:
    return Contrast.of(name, areas[first] - areas[second])


def compare(views: Views, pairs: Sequence[tuple[Any, Any]], named: Callable[..., str] = over) -> list[Compared]:
    """Every pair of models (first, second: the first is claimed to leak more) by every view that has both."""
    tests = [
        (difference(areas, first, second, named(first, second)), view)
        for first, second in pairs
        for view, areas in views.items()
        if {first, second} <= {*areas}
    ]
    return judged([contrast for contrast, _ in tests], [view for _, view in tests])


def themselves(study: Study, names: Sequence[str]) -> tuple[list[str], str]:
    """The techniques whose defining mechanism ran, and a sentence about the others: of those there is no verdict."""
    absent = {name: why for name in names if (why := study.models[name].mechanism_absent)}
    return [name for name in names if name not in absent], " ".join(f"{why}." for why in absent.values())


def tables_of(study: Study, names: Sequence[str]) -> dict[Variant, pd.DataFrame]:
    """Each model's scores, and those of its trainings with other seeds, with groups (`Study.grouped`)."""
    runs = {Variant(name): study.models[name] for name in names}
    runs |= {run: trial for run, trial in study.trials.items() if run.method in names and run.seed is not None}
    return study.grouped({run: model.scores for run, model in runs.items() if not model.mechanism_absent})


_Leak = TypeVar("_Leak", Leak, MeanLeak)


def mean_of(areas: Sequence[_Leak]) -> _Leak:
    """The mean of several models' leaks."""
    total = areas[0]
    for leak in areas[1:]:
        total = total + leak
    return total * (1 / len(areas))


def aucs(views: Views) -> dict[str, dict[str, float]]:
    """Attack -> model or run -> its AUC."""
    by_auc = {view.attack: areas for view, areas in views.items() if view.metric == AUC}
    return {attack: {str(name): leak.value for name, leak in areas.items()} for attack, areas in by_auc.items()}


def finding(
    claim: str, says: str, compared: Sequence[Compared], views: Views, answer: str,
    figures: dict | None = None, caveat: str = "", conditional_on: Sequence[str] = (),
) -> Finding:  # fmt: skip
    return Finding(
        claim, says, together(compared), tested_by(views, compared), answer, compared, figures or {},
        detectable(compared), caveat, conditional_on, attacks_of(views), runs_of(compared),
    )  # fmt: skip


def _names(views: Views) -> list[str]:
    return list(dict.fromkeys(name for areas in views.values() for name in areas))


def every_pair(compared: Sequence[Compared]) -> str:
    """Each comparison with the figures of its tests."""
    pairs = {name: [c for c in compared if c.contrast.name == name] for name in by_pair(compared)}
    return "; ".join(f"{name}: {by_view(of_pair)}" for name, of_pair in pairs.items()) + "."


def by_view(compared: Sequence[Compared]) -> str:
    """The verdicts of one comparison's tests, AUCs with their difference: +.019 by loss (p = .008)."""
    shown = [c for c in compared if c.view is None or c.view.metric == AUC]
    words = [f"{signed(c.contrast.value)} by {c.view.attack if c.view else ''} ({p_value(c.p_holm)})" for c in shown]
    others = [c for c in compared if c not in shown and c.verdict != INCONCLUSIVE]
    words += [_measured(c, name=False) for c in others]
    return ", ".join(words)


def _measured(each: Compared, *, name: bool = True) -> str:
    view = each.view or View("")
    metric = "" if view.metric == AUC else f", {view.metric}"
    figures = f"{signed(each.contrast.value)} by {view.attack}{metric}"
    return f"{each.contrast.name} ({figures})" if name else figures


def _opposed(compared: Sequence[Compared]) -> str:
    """Comparisons that attacks decide oppositely, with one test for and one against."""
    words = []
    for name in [name for name, verdict in by_pair(compared).items() if verdict == DEPENDS]:
        of_pair = [c for c in compared if c.contrast.name == name and c.verdict != INCONCLUSIVE]
        ends = (max(of_pair, key=lambda c: c.contrast.value), min(of_pair, key=lambda c: c.contrast.value))
        words.append(f"{name} ({_measured(ends[0], name=False)}; {_measured(ends[1], name=False)})")
    return "; ".join(words)
