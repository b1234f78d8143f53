"""What pages are made of, as values: tables, charts, remarks. Their markup stands in templates/blocks.html.j2.

A block may stand wherever text may (in a table's cell, say). Whatever is not a block is escaped, so a record id or a
file name cannot become markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kdleak.render.templates import TEMPLATES


class Block:
    """Draws itself by the macro that bears its class's name; jinja asks for `__html__`."""

    def __html__(self) -> str:
        return str(getattr(TEMPLATES.get_template("blocks.html.j2").module, type(self).__name__.lower())(self)).strip()

    def __str__(self) -> str:
        return self.__html__()


class Paragraph(Block):
    def __init__(self, *parts: object):
        self.parts = parts


@dataclass(frozen=True)
class _Text(Block):
    text: object


class Heading(_Text):
    """A heading within a section."""


class Strong(_Text):
    pass


class Code(_Text):
    pass


class Marked(_Text):
    """Text in which what stands in back-ticks is code."""


class Absent(Marked):
    """The one line that stands where there is nothing to show."""


@dataclass(frozen=True)
class Bullets(Block):
    items: Sequence[object]


@dataclass(frozen=True)
class Callout(Block):
    """A remark in a box. kind: `note`, `good` or `bad`."""

    content: object
    kind: str = "note"


@dataclass(frozen=True)
class Badge(Block):
    """A short word on a coloured ground, for a table's cell. kind: as a callout's."""

    text: object
    kind: str = "note"


@dataclass(frozen=True)
class Table(Block):
    """A table whose first `words` columns are words and the others numbers, set right."""

    header: Sequence[object]
    rows: Sequence[Sequence[object]]
    caption: object = ""
    words: int = 1

    def kind(self, column: int) -> str:
        return "word" if column < self.words else "number"


@dataclass(frozen=True)
class Chart(Block):
    """An SVG drawing (as `svg.drawing` gives it) with its caption, which also says what it shows to who cannot see."""

    svg: str
    caption: object

    @property
    def drawing(self) -> Markup:
        described = Markup('<svg role="img" aria-label="{}" ').format(str(self.caption))
        return Markup(self.svg[self.svg.index("<svg ") :].replace("<svg ", described, 1))


class SideBySide(Block):
    """Blocks beside each other where the window is wide enough, below each other where not."""

    def __init__(self, *blocks: object):
        self.blocks = blocks


class Details(Block):
    """What only some readers want: folded away, open on a click."""

    def __init__(self, summary: object, *blocks: object):
        self.summary, self.blocks = summary, blocks
