"""The ROC figure of one model: a curve an attack, on logarithmic axes (Carlini et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure  # not pyplot: no window system is asked for, no figure is kept

if TYPE_CHECKING:
    import pandas as pd

_SMALLEST = 1e-3


def attack_roc_figure(table: pd.DataFrame, title: str) -> Figure:
    """Draw the curves of a roc.csv (attack, fpr, tpr); rates below the smallest non-zero one stand on the axis."""
    rates = table.loc[table["fpr"] > 0, "fpr"]
    floor = min(_SMALLEST, rates.min()) if len(rates) else _SMALLEST
    figure = Figure(figsize=(6.4, 4.8))
    axes = figure.add_axes((0.11, 0.11, 0.86, 0.81))
    for attack, curve in table.groupby("attack", sort=False):
        axes.step(curve["fpr"].clip(lower=floor), curve["tpr"], where="post", label=attack, lw=1.5)
    axes.plot([floor, 1], [floor, 1], color="black", lw=1, ls=":", label="chance")
    axes.set(xscale="log", yscale="log", xlim=(floor, 1), ylim=(floor, 1.05), title=title)
    axes.set(xlabel="non-members called members (FPR)", ylabel="members found (TPR)")
    axes.minorticks_off()
    axes.grid(alpha=0.3, lw=0.5)
    axes.legend(loc="lower right", frameon=False)
    return figure
