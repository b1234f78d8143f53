"""A page: one HTML file that opens offline, reads well on a laptop and a phone, and prints. No script."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kdleak.render.templates import TEMPLATES


@dataclass(frozen=True)
class Section:
    """A titled part of a page with its entry in the table of contents. lead: the answer, before any figure."""

    title: str
    blocks: Sequence[object]
    lead: object = ""

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Page:
    """What templates/base.html.j2 shows. summary: blocks that stand before the first section."""

    title: str
    sections: Sequence[Section]
    subtitle: object = ""
    summary: Sequence[object] = ()
    footer: object = ""

    def html(self) -> str:
        """The whole document."""
        return _unique_ids(TEMPLATES.get_template("base.html.j2").render(page=self))


_SVG = re.compile(r"<svg .*?</svg>", re.DOTALL)
_ID = re.compile(r'( id="| xlink:href="#| href="#|url\(#)')


def _unique_ids(markup: str) -> str:
    """The same with every drawing's ids made its own: two drawings both call their first axes `axes_1`."""
    drawings = iter(range(1, markup.count("<svg ") + 1))
    return _SVG.sub(lambda svg: _ID.sub(rf"\g<1>fig{next(drawings)}-", svg.group()), markup)
