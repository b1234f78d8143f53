"""The frontier as a picture: utility against leak, of the average record and of the worst case, for one method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kdleak.render.charts import Estimate, legend_below, logarithmic
from kdleak.render.palette import BLACK, GREY, SOFT, cycle
from kdleak.render.svg import drawing, settings

#: The points that every other one is seen against.
UNDEFENDED, NO_KD, PRIVATE = "none", "no-KD", "dp_sgd"

Rows = Sequence[Mapping[str, Any]]
Ends = Sequence[float | None]


def frontier_figure(found: Mapping[str, Any], method: str | None = None) -> str:
    """An `<svg>` of what frontier.json holds; of an empty grid, one that says so.

    Left: AUC of the attack that the file names, folded at one half, with intervals; the hull, the controls as a line,
    ε beside the points of DP-SGD. Right: exposure of the canaries that were planted most often. Filled points are not
    dominated; hollow ones are.
    """
    with settings():
        figure = Figure(figsize=(9.2, 5.2), layout="constrained")
        if not found["points"]:
            figure.text(0.5, 0.5, "no defences were compared: defence.grid is empty", ha="center", color=SOFT)
            return drawing(figure)
        method = method or found["points"][0]["method"]
        rows = [row for row in found["points"] if row["method"] == method]
        compared = [row for row in found["compared"] if row["method"] == method]
        average, worst = figure.subplots(1, 2)
        _lines(average, compared, found["attack"])
        looks = cycle([name for name in dict.fromkeys(row["defence"] for row in rows) if name != UNDEFENDED])
        for row in rows:
            low, high = row["auc_ci95"]
            _point(average, row, row["auc"], (low, high), looks)
            if row["exposure"] is not None:
                _point(worst, row, row["exposure"], row["exposure_ci95"], looks, named=False)
        _no_kd(average, worst, found)
        if PRIVATE in looks:
            _epsilons(average, [row for row in rows if row["defence"] == PRIVATE], looks[PRIVATE].colour)
        average.set(xlabel="held-out perplexity (left is better)", ylabel=f"|AUC − ½| + ½ of {found['attack']}")
        worst.set(xlabel="held-out perplexity (left is better)", ylabel="exposure of the most planted canaries, bits")
        for axes in (average, worst):
            logarithmic(axes)
        average.set_title(f"average record, {method}")
        worst.set_title("worst case: canaries")
        legend_below(figure, average)
        return drawing(figure)


def _lines(axes: Any, compared: Rows, attack: str) -> None:
    """The hull of all points, and the line of the controls."""
    corners = sorted((row["perplexity"], row["leak"]) for row in compared if row["on_hull"])
    axes.plot(*zip(*corners, strict=True), color=SOFT, lw=1, ls=":", label="hull", zorder=1)
    line = sorted((row["perplexity"], row["leak"]) for row in compared if row["on_line"])
    axes.plot(*zip(*line, strict=True), color=GREY, lw=4, alpha=0.35, label="controls", zorder=0)


def _point(axes: Any, row: Mapping[str, Any], value: float, ends: Ends, looks: Any, named: bool = True) -> None:
    """One training, with its interval where there is one (that of a single canary has none)."""
    if row["defence"] == UNDEFENDED:
        colour, marker, name = BLACK, "*", "undefended"
    else:
        look = looks[row["defence"]]
        colour, marker, name = look.colour, "s" if row["control"] else "D" if look.hollow else "o", look.label
    arms = Estimate(value, ends).arms
    if arms:
        axes.errorbar(row["perplexity"], value, np.reshape(arms, (2, 1)), color=colour, fmt="none", lw=0.9, alpha=0.55)
    face = "white" if row["dominated"] else colour
    shown = name if named and name not in axes.get_legend_handles_labels()[1] else None
    axes.plot(row["perplexity"], value, color=colour, marker=marker, mfc=face, ls="", label=shown)


def _no_kd(average: Any, worst: Any, found: Mapping[str, Any]) -> None:
    own = found["no_kd"]
    leak = own["attacks"].get(found["attack"], {"leak": 0.5})["leak"]
    average.plot(own["perplexity"], leak, color=GREY, marker="X", ls="", label="no-KD student")
    if own["exposure"] is not None:
        worst.plot(own["perplexity"], own["exposure"], color=GREY, marker="X", ls="")


def _epsilons(axes: Any, rows: Rows, colour: str) -> None:
    """The DP line: points of DP-SGD in order of their noise, ε beside each."""
    order = sorted(rows, key=lambda row: row["strength"])
    where = [[row[key] for row in order] for key in ("perplexity", "auc")]
    axes.plot(*where, color=colour, lw=0.8, label="DP-SGD, ε")
    for row in order:
        said = "no ε" if row["epsilon"] is None else f"ε {row['epsilon']:.3g}"
        axes.annotate(said, (row["perplexity"], row["auc"]), xytext=(5, 4), textcoords="offset points", fontsize=8)
