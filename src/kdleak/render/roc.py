"""ROC curves on logarithmic axes, where a leak of a few records shows (Carlini et al. 2022): linear axes hide it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure  # not pyplot: no window system is asked for, no figure is kept
from matplotlib.ticker import FuncFormatter, NullLocator

from kdleak.render.charts import HALF, legend_below
from kdleak.render.palette import SOFT, Style, cycle, label, style
from kdleak.render.svg import drawing, settings

if TYPE_CHECKING:
    import pandas as pd

#: Where axes start that no count of non-members bounds.
_SMALLEST = 1e-3

Curve = tuple[np.ndarray, np.ndarray]


def roc(
    curves: Mapping[str, Curve],
    floor: float,
    *,
    title: str = "",
    labels: Mapping[str, str] | None = None,
    width: float = HALF,
) -> str:
    """The `<svg>` of a curve a model. curves: model -> (fpr, tpr) at every threshold. floor: where both axes start, the
    share of one record. labels: what the legend calls a model, where not by its name."""
    looks = {name: style(name) for name in curves}
    named = {name: (labels or {}).get(name) or label(name) for name in curves}
    return drawing(_figure(curves, looks, named, floor, title, width))


def attack_roc_figure(table: pd.DataFrame, title: str) -> Figure:
    """A curve an attack, of a roc.csv (attack, fpr, tpr); rates below the smallest non-zero one stand on the axis."""
    rates = table.loc[table["fpr"] > 0, "fpr"]
    floor = min(_SMALLEST, rates.min()) if len(rates) else _SMALLEST
    curves = {
        name: (curve["fpr"].to_numpy(), curve["tpr"].to_numpy()) for name, curve in table.groupby("attack", sort=False)
    }
    return _figure(curves, cycle(list(curves)), {name: name for name in curves}, floor, title, HALF)


def _figure(
    curves: Mapping[str, Curve],
    looks: Mapping[str, Style],
    labels: Mapping[str, str],
    floor: float,
    title: str,
    width: float,
) -> Figure:
    with settings():
        figure = Figure(figsize=(width, 5.0), layout="constrained")
        axes = figure.subplots()
        for name, (fpr, tpr) in curves.items():
            fpr, tpr = _thinned(np.clip(fpr, floor, 1.0), np.asarray(tpr))
            look = looks[name]
            axes.step(fpr, tpr, where="post", color=look.colour, ls=look.line, label=labels[name])
        axes.plot([floor, 1], [floor, 1], color=SOFT, lw=1, ls=":", label="chance")
        axes.set(xscale="log", yscale="log", xlim=(floor, 1), ylim=(floor, 1.15), title=title)
        axes.set(xlabel="non-members called members (FPR)", ylabel="members found (TPR)")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:g} %"))
        legend_below(figure, axes)
    return figure


def _thinned(fpr: np.ndarray, tpr: np.ndarray) -> Curve:
    """The corners of a step curve alone: a point between two others on one line changes nothing that is drawn."""
    if len(fpr) < 3:
        return fpr, tpr
    inner = ((fpr[1:-1] == fpr[:-2]) & (fpr[1:-1] == fpr[2:])) | ((tpr[1:-1] == tpr[:-2]) & (tpr[1:-1] == tpr[2:]))
    keep = np.concatenate([[True], ~inner, [True]])
    return fpr[keep], tpr[keep]
