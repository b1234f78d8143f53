"""One look for each model in every figure: Okabe and Ito's colours, which colour-blind readers can tell apart.

There are more techniques than colours: the objectives alone (rkl, jsd, ...) take the colour of the technique that
is built on them, with a hollow marker and a dashed line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

BLUE, ORANGE, SKY, GREEN = "#0072B2", "#E69F00", "#56B4E9", "#009E73"
PURPLE, VERMILION, BLACK, GREY = "#CC79A7", "#D55E00", "#000000", "#7F7F7F"
#: Axes, chance, what is not a model; and text.
SOFT, INK = "#59636E", "#1D2329"


@dataclass(frozen=True)
class Style:
    """How a model is drawn, and what it is called. hollow: a marker without filling, and a dashed line."""

    colour: str
    marker: str
    hollow: bool = False
    label: str = ""

    @property
    def line(self) -> str:
        return "--" if self.hollow else "-"

    @property
    def face(self) -> str:
        return "white" if self.hollow else self.colour


STYLES = MappingProxyType(
    {
        "teacher": Style(BLACK, "*", label="teacher"),
        "sft": Style(GREY, "X", label="no-KD student"),
        "kd": Style(BLUE, "o", label="KD"),
        "seqkd": Style(ORANGE, "s", label="SeqKD"),
        "imitkd": Style(SKY, "^", label="ImitKD"),
        "gkd": Style(GREEN, "D", label="GKD"),
        "distillm": Style(PURPLE, "v", label="DistiLLM"),
        "minillm": Style(VERMILION, "P", label="MiniLLM"),
        "rkl": Style(VERMILION, "o", True, "reverse KL"),
        "jsd": Style(GREEN, "s", True, "JSD"),
        "sfkl": Style(SKY, "D", True, "skew forward KL"),
        "srkl": Style(PURPLE, "^", True, "skew reverse KL"),
        "tvd": Style(BLACK, "v", True, "total variation"),
        "akl": Style(ORANGE, "h", True, "adaptive KL"),
        "opd": Style(BLUE, "p", True, "on-policy (OPD)"),
        "topk": Style(GREY, "d", True, "top-k"),
    }
)
#: An audited student, which is no technique of the study.
STUDENT = Style(BLUE, "o")
_CYCLE = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK, GREY)


def style(name: str) -> Style:
    """The look of a model: `teacher`, `sft` (the no-KD student), a technique, or `student`."""
    return STYLES.get(name, STUDENT)


def cycle(names: Sequence[str]) -> dict[str, Style]:
    """A look for each of `names` that are no models (attacks, say), by their order."""
    marks = [Style(colour, "o", hollow) for hollow in (False, True) for colour in _CYCLE]
    return {name: replace(marks[i % len(marks)], label=name) for i, name in enumerate(names)}


def label(name: str) -> str:
    """What a model is called in a figure."""
    return STYLES[name].label if name in STYLES else name
