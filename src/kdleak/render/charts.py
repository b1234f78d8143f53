"""The kinds of figures that reports are made of. Each function takes numbers and gives the SVG of one figure.

Intervals are (low, high); None or NaN stands for what is not known and is not drawn. Names of models are those of
`palette`, so that a technique looks the same in every figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from kdleak.render.palette import SOFT, label, style
from kdleak.render.svg import drawing, settings

#: Inches of a figure that stands by itself, and of one of two beside each other: so narrow that a phone can show it
#: whole, with words that can be read. A matrix of every attack needs more.
WIDE, HALF, MATRIX = 6.2, 5.0, 9.2


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval; either may be unknown."""

    value: float | None
    interval: Sequence[float | None] | None = None

    @property
    def known(self) -> bool:
        return self.value is not None and math.isfinite(self.value)

    @property
    def arms(self) -> tuple[float, float] | None:
        """Distances from the value down to the interval's low end and up to its high end."""
        ends = [end for end in self.interval or () if end is not None and math.isfinite(end)]
        if self.value is None or not self.known or len(ends) != 2:
            return None
        return max(0.0, self.value - ends[0]), max(0.0, ends[1] - self.value)


def heatmap(
    rows: Sequence[str],
    columns: Sequence[str],
    values: np.ndarray,
    *,
    title: str = "",
    limits: tuple[float, float] = (0.5, 1.0),
    width: float = HALF,
    row_label: Callable[[str], str] = label,
) -> str:
    """`values` (rows, columns) as coloured cells with their numbers, lighter for more; NaN is an empty cell."""
    with settings():
        figure = Figure(figsize=(width, 0.34 * len(rows) + 1.35), layout="constrained")
        axes = figure.subplots()
        edges = np.arange(len(columns) + 1) - 0.5, np.arange(len(rows) + 1) - 0.5
        shading = {"cmap": "cividis", "vmin": limits[0], "vmax": limits[1], "edgecolor": "white", "lw": 1}
        axes.pcolormesh(*edges, np.ma.masked_invalid(values), **shading)
        axes.invert_yaxis()
        axes.set_xticks(range(len(columns)), columns, rotation=35, ha="left", rotation_mode="anchor")
        axes.set_yticks(range(len(rows)), [row_label(row) for row in rows])
        axes.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        if title:
            axes.set_title(title)
        middle = sum(limits) / 2
        for i, j in zip(*np.nonzero(np.isfinite(values)), strict=True):
            shown = f"{values[i, j]:.2f}".replace("0.", ".", 1)
            ink = "white" if values[i, j] < middle else "black"
            axes.text(j, i, shown, ha="center", va="center", color=ink, fontsize=9)
        return drawing(figure)


def dots(
    groups: Sequence[str],
    series: Mapping[str, Sequence[Estimate]],
    *,
    xlabel: str,
    reference: float | None = None,
    reference_label: str = "chance",
    width: float = WIDE,
    legend: bool = True,
    group_label: Callable[[str], str] = str,
) -> str:
    """Groups down, one dot with its interval for each series; series are models, or words.

    A series by itself (one series) is drawn in each group's own look, for groups that are models.
    """
    own_look = len(series) == 1
    step = 0.8 / max(1, len(series))
    with settings():
        figure = Figure(figsize=(width, max(1.6, 0.26 * len(groups) * max(1.0, 0.55 * len(series)) + 1.1)))
        figure.set_layout_engine("constrained")
        axes = figure.subplots()
        for k, (name, estimates) in enumerate(series.items()):
            offset = (k - (len(series) - 1) / 2) * step
            for i, estimate in enumerate(estimates):
                if estimate.known:
                    look = style(groups[i] if own_look else name)
                    shown = "" if own_look or any(e.known for e in estimates[:i]) else label(name)
                    _dot(axes, estimate, i + offset, look, shown)
        _reference(axes, reference, reference_label, vertical=True)
        axes.set_yticks(range(len(groups)), [group_label(group) for group in groups])
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.yaxis.grid(False)
        axes.set_xlabel(xlabel)
        if legend and (not own_look or reference is not None):
            legend_below(figure, axes)
        return drawing(figure)


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[Estimate]]],
    *,
    xlabel: str,
    ylabel: str,
    reference: float | None = None,
    reference_label: str = "chance",
    integer_x: bool = False,
    log_x: bool = False,
    categories: Sequence[str] | None = None,
    width: float = WIDE,
) -> str:
    """A line for each model: series -> (x, estimates), intervals as whiskers. categories: names of x = 0, 1, ..."""
    with settings():
        figure = Figure(figsize=(width, 3.9), layout="constrained")
        axes: Any = figure.subplots()  # its stubs cannot read keywords that come from a dict
        for name, (xs, estimates) in series.items():
            look = style(name)
            known = [(x, e) for x, e in zip(xs, estimates, strict=True) if e.known]
            if not known:
                continue
            line = {"ls": look.line, "marker": look.marker, "mfc": look.face, "label": label(name)}
            axes.plot([x for x, _ in known], [e.value for _, e in known], color=look.colour, **line)
            for x, estimate in known:
                if estimate.arms:
                    arms = np.reshape(estimate.arms, (2, 1))
                    axes.errorbar(x, estimate.value, arms, color=look.colour, lw=1, alpha=0.6, fmt="none")
        _reference(axes, reference, reference_label, vertical=False)
        if log_x:
            logarithmic(axes)
        if integer_x:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if categories is not None:
            axes.set_xticks(range(len(categories)), categories)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        legend_below(figure, axes)
        return drawing(figure)


def scatter(
    points: Mapping[str, tuple[Estimate, Estimate]], *, xlabel: str, ylabel: str, width: float = HALF,
    x_reference: float | None = None, y_reference: float | None = None,
) -> str:  # fmt: skip
    """A point for each model at (x, y), with both intervals and its name beside it."""
    with settings():
        figure = Figure(figsize=(width, 4.1), layout="constrained")
        axes: Any = figure.subplots()  # as above
        for name, (x, y) in points.items():
            if not (x.known and y.known):
                continue
            look = style(name)
            sides = {k: np.reshape(e.arms, (2, 1)) for k, e in (("xerr", x), ("yerr", y)) if e.arms}
            axes.errorbar(x.value, y.value, **sides, color=look.colour, fmt="none", lw=0.9, alpha=0.55)
            line = {"color": look.colour, "marker": look.marker, "mfc": look.face, "ls": "", "label": label(name)}
            axes.plot(x.value, y.value, **line)
        _reference(axes, x_reference, "", vertical=True)
        _reference(axes, y_reference, "", vertical=False)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        legend_below(figure, axes)
        return drawing(figure)


def legend_below(figure: Figure, axes) -> None:
    """One legend under the axes: beside them it would take a third of a narrow page."""
    handles, labels = axes.get_legend_handles_labels()
    column = 0.075 * max(map(len, labels), default=0) + 0.5  # inches of its longest label and its mark, about
    columns = min(4, max(1, int(figure.get_figwidth() / column)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def _dot(axes, estimate: Estimate, y: float, look, shown: str) -> None:
    if estimate.arms:
        arms = np.reshape(estimate.arms, (2, 1))
        axes.errorbar(estimate.value, y, xerr=arms, color=look.colour, fmt="none", lw=1.4, capsize=0)
    axes.plot(estimate.value, y, color=look.colour, marker=look.marker, mfc=look.face, ls="", label=shown or None)


def logarithmic(axes) -> None:
    """A logarithmic x axis in plain numbers: 12 and 15, not powers of ten."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _reference(axes, value: float | None, words: str, *, vertical: bool) -> None:
    if value is not None:
        draw = axes.axvline if vertical else axes.axhline
        draw(value, color=SOFT, lw=1, ls=":", label=words or None)
