"""What an audit means in CI: limits on its figures, and the exit code of `kdleak audit --fail-above`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdleak.auditing.judgement import LEAK, NONE
from kdleak.auditing.list_verdict import NO_NULL, UNTOLD, knows_a_null
from kdleak.core.errors import KdleakError, nearest

#: Exit codes beside 0 (nothing is shown to be above its limit) and those of errors: a limit is crossed; the audit can
#: tell nothing (lists that differ or are swapped, a control that did not pass).
ABOVE, CANNOT_SAY = 3, 4
#: What may be limited, as the message names it.
LIMITED = {"excess_auc": "excess AUC", "tpr": "TPR", "p": "p-value", "list_p": "p-value of the list"}
#: Those of them that cross a limit from above.
_BELOW = ("p", "list_p")


def read_limits(texts: Sequence[str]) -> dict[str, float]:
    """`["excess_auc=.05", "tpr=.02"]` as numbers by name. Raises KdleakError for another name, or no share."""
    limits = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in LIMITED:
            raise KdleakError(f"--fail-above {text}: '{name}' cannot be limited; {nearest(name, LIMITED)}")
        try:
            limits[name] = float(value)
        except ValueError:
            limits[name] = -1.0
        if not 0.0 <= limits[name] <= 1.0:
            raise KdleakError(f"--fail-above {text}: a limit is a number from 0 to 1; write {name}=0.05")
    return limits


def exit_code(figures: Mapping[str, Any], limits: Mapping[str, float]) -> tuple[int, list[str]]:
    """The exit code of an audit (the content of audit.json) under `limits`, and why, a line each.

    A limit is crossed where the figure is *shown* to be beyond it: the lower bound of the largest excess AUC over every
    model that never met the teacher (for all attacks at once), the lower end of the TPR at the audit's FPR, or *below*
    it, for p, a permutation p-value of the best attack, for list_p that of the list as a whole. A limit finer than what
    would have been noticed is said to be.
    """
    verdict = figures["verdict"]
    if limits and verdict["kind"] not in (LEAK, NONE):
        return CANNOT_SAY, [f"--fail-above: {verdict['headline']}"]
    if "list_p" in limits and (why := _untold(figures["list"], limits["list_p"])):
        return CANNOT_SAY, [f"--fail-above: {figures['list']['headline']} {why}"]
    lines, crossed = [], False
    for name, limit in limits.items():
        value = _figure(figures, name)
        below = name in _BELOW
        beyond = value is not None and (value < limit if below else value > limit)
        crossed |= beyond
        shown = "not known" if value is None else f"{value:.3g}" if below else f"at least {max(0.0, value):.3g}"
        says = ("below" if below else "above") if beyond else "not shown beyond"
        lines.append(f"--fail-above {name}={limit:g}: the {LIMITED[name]} is {shown}, {says} the limit")
        noticed = verdict["power"]["noticeable_auc"] - 0.5
        if name == "excess_auc" and not beyond and limit < noticed:
            lines[-1] += f"; an excess below {noticed:.3g} may have gone unnoticed"
    return ABOVE if crossed else 0, lines


def _untold(listed: Mapping[str, Any], limit: float) -> str:
    """Why a limit on the list's p-value decides nothing; "" where it does. A p below the limit accuses the student only
    where a model that never met the teacher took the test too."""
    if listed["kind"] == UNTOLD:
        return listed["why"]
    return NO_NULL if listed["p_value"] < limit and not knows_a_null(listed) else ""


def _figure(figures: Mapping[str, Any], name: str) -> float | None:
    verdict = figures["verdict"]
    if name == "tpr":
        return verdict["strongest"]["tpr_ci"][0]
    if name == "list_p":
        return figures["list"]["p_value"]
    if name == "p":
        best = figures["membership"]["controls"]["permutation"]["best"]
        return None if best is None else best["p_value"]
    bounds = [each["at_least"] for each in verdict["excess"]["attacks"].values()]
    return max(bounds, default=None)
