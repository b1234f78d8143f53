"""Drawings as SVG: the same figure is the same bytes, and its words stay words, set in the page's own font."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from io import StringIO
from typing import Any

import matplotlib
from matplotlib.figure import Figure  # not pyplot: no window system is asked for, no figure is kept

from kdleak.render.palette import INK, SOFT

_SETTINGS: dict[Any, Any] = {  # matplotlib names its keys one by one
    "svg.hashsalt": "kdleak",
    "svg.fonttype": "none",
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.titlesize": 11.0,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E8EC",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "lines.linewidth": 1.6,
    "lines.markersize": 6.0,
}
#: Without them no metadata block is written; it would hold the date.
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
#: Matplotlib's list of families, a hundred characters for every word: the page's own family is inherited instead.
_FAMILY = re.compile(r"; font-family: [^;\"]*")


def settings() -> AbstractContextManager[None]:
    """The settings that figures of a report are made and drawn with: `with settings(): figure = Figure(...)`."""
    return matplotlib.rc_context(_SETTINGS)


def by_itself(svg: str) -> str:
    """A drawing as a file of its own: no page is there to give it a font."""
    return svg.replace("<svg ", '<svg font-family="sans-serif" ', 1) + "\n"


def drawing(figure: Figure) -> str:
    """The `<svg>` element of `figure`, without an XML header."""
    out = StringIO()
    with settings():
        figure.savefig(out, format="svg", metadata=_NO_METADATA)
    text = out.getvalue()
    return _FAMILY.sub("", text[text.index("<svg ") :]).strip()
