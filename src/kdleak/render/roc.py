"""The ROC figure of the headline: teacher, student and student without KD, on logarithmic axes.

A leak is what an attacker gains at few false accusations (Carlini et al. 2022), which linear axes hide in a corner.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import pandas as pd

from kdleak.core.files import replacing_file

matplotlib.use("agg")
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Okabe-Ito colours, safe for colour-blind readers: the same role has the same colour in every figure.
COLOURS = {"teacher": "#0072B2", "student": "#D55E00", "baseline": "#7F7F7F"}


def roc_figure(curves: Mapping[str, tuple[str, pd.DataFrame]], attack: str, floor: float) -> Figure:
    """Draw `curves`: role -> (label, table with attack, fpr, tpr). Axes start at `floor`, one record's share."""
    figure, axes = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
    for role, (label, table) in curves.items():
        curve = table[table["attack"] == attack]
        axes.step(curve["fpr"].clip(lower=floor), curve["tpr"], where="post", label=label, color=COLOURS[role], lw=2)
    diagonal = [floor, 1.0]
    axes.plot(diagonal, diagonal, color="black", lw=1, ls=":", label="chance")
    axes.set(
        xscale="log", yscale="log", xlim=(floor, 1), ylim=(floor, 1.05),
        xlabel="non-members called members (FPR)", ylabel="members found (TPR)",
        title=f"Who was in the teacher's private data? Attack: {attack}",
    )  # fmt: skip
    axes.grid(alpha=0.3, which="both", lw=0.5)
    axes.legend(loc="lower right", frameon=False)
    return figure


def write_svg(figure: Figure, path: Path) -> None:
    """The same figure is the same file: no date, no random ids."""
    with replacing_file(path) as fresh, plt.rc_context({"svg.hashsalt": "kdleak"}):
        figure.savefig(fresh, format="svg", metadata={"Date": None})
    plt.close(figure)
