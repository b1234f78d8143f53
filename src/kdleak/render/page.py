"""The shell of every report: one HTML file that opens offline, reads well on a laptop and a phone, and prints.

Nothing is fetched: styles and figures stand in the file, fonts are the system's, and there is no script. Whatever is
not already `Html` is escaped, so a record id or a file name cannot become markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources


class Html(str):
    """Markup that may stand in a page as it is."""

    __slots__ = ()


def html(content: object) -> Html:
    """`content` as markup: itself where it is `Html`, else its text, escaped."""
    return content if isinstance(content, Html) else Html(escape(str(content)))


@dataclass(frozen=True)
class Section:
    """A titled part of a page with its entry in the table of contents. lead: the answer, before any figure."""

    title: str
    blocks: Sequence[object]
    lead: str | Html = ""

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def page(
    title: str,
    sections: Sequence[Section],
    *,
    subtitle: str | Html = "",
    summary: Iterable[object] = (),
    footer: str | Html = "",
) -> str:
    """The whole document. summary: blocks that stand before the table of contents' first section."""
    style = resources.files("kdleak.render").joinpath("page.css").read_text(encoding="utf-8")
    contents = "".join(f'<li><a href="#{s.anchor}">{html(s.title)}</a></li>' for s in sections)
    body = _unique_ids("".join(_section(section) for section in sections))
    head = "".join(html(block) for block in summary)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # A browser asks for /favicon.ico unless it is told that there is none.
        '<link rel="icon" href="data:,">\n'
        f"<title>{html(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f'<nav aria-label="Contents"><p>Contents</p><ol>{contents}</ol></nav>\n'
        f'<main>\n<header><h1>{html(title)}</h1><p class="subtitle">{html(subtitle)}</p>{head}</header>\n'
        f"{body}<footer>{html(footer)}</footer>\n</main>\n</body>\n</html>\n"
    )


def paragraph(*parts: object) -> Html:
    return Html(f"<p>{''.join(html(part) for part in parts)}</p>")


def heading(text: object) -> Html:
    """A heading within a section."""
    return Html(f"<h3>{html(text)}</h3>")


def strong(text: object) -> Html:
    return Html(f"<strong>{html(text)}</strong>")


def code(text: object) -> Html:
    return Html(f"<code>{html(text)}</code>")


def bullets(items: Iterable[object]) -> Html:
    return Html(f"<ul>{''.join(f'<li>{html(item)}</li>' for item in items)}</ul>")


def callout(text: object, kind: str = "note") -> Html:
    """A remark in a box. kind: `note`, `good` or `bad`."""
    return Html(f'<div class="callout {escape(kind)}">{html(text)}</div>')


def verdict(text: str, kind: str = "note") -> Html:
    """A short word on a coloured ground, for a table's cell."""
    return Html(f'<span class="verdict {escape(kind)}">{html(text)}</span>')


def marked(text: str) -> Html:
    """`text` as markup, with what stands in back-ticks as code."""
    return Html("".join(code(part) if i % 2 else html(part) for i, part in enumerate(text.split("`"))))


def absent(text: str) -> Html:
    """The one line that stands where there is nothing to show."""
    return Html(f'<p class="absent">{marked(text)}</p>')


def table(header: Sequence[object], rows: Iterable[Sequence[object]], caption: object = "", words: int = 1) -> Html:
    """A table whose first `words` columns are words and the others numbers, set right."""
    kinds = ["word" if i < words else "number" for i in range(len(header))]
    head = "".join(f'<th class="{k}" scope="col">{html(h)}</th>' for k, h in zip(kinds, header, strict=True))
    body = "".join(_row(kinds, row) for row in rows)
    title = f"<caption>{html(caption)}</caption>" if caption else ""
    return Html(f'<div class="scroll"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')


def _row(kinds: Sequence[str], cells: Sequence[object]) -> str:
    return "<tr>" + "".join(f'<td class="{k}">{html(c)}</td>' for k, c in zip(kinds, cells, strict=True)) + "</tr>"


def figure(svg: str, caption: object, label: str = "") -> Html:
    """An SVG drawing (as `svg.drawing` gives it) with its caption. label: what it shows, for who cannot see it."""
    described = f'<svg role="img" aria-label="{escape(label or str(caption), quote=True)}" '
    drawing = svg[svg.index("<svg ") :].replace("<svg ", described, 1)
    return Html(f"<figure>{drawing}<figcaption>{html(caption)}</figcaption></figure>")


def side_by_side(*blocks: object) -> Html:
    """Blocks beside each other where the window is wide enough, below each other where not."""
    return Html(f'<div class="beside">{"".join(html(block) for block in blocks)}</div>')


def details(summary: object, *blocks: object) -> Html:
    """What only some readers want: folded away, open on a click; printed open where the browser can."""
    return Html(f"<details><summary>{html(summary)}</summary>{''.join(html(block) for block in blocks)}</details>")


def _section(section: Section) -> str:
    lead = f'<p class="lead">{html(section.lead)}</p>' if section.lead else ""
    blocks = "".join(f"{html(block)}\n" for block in section.blocks)
    return f'<section id="{section.anchor}">\n<h2>{html(section.title)}</h2>\n{lead}{blocks}</section>\n'


_SVG = re.compile(r"<svg .*?</svg>", re.DOTALL)
_ID = re.compile(r'( id="| xlink:href="#| href="#|url\(#)')


def _unique_ids(markup: str) -> str:
    """The same with every drawing's ids made its own: two drawings both call their first axes `axes_1`."""
    count = 0

    def own(match: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return _ID.sub(rf"\g<1>fig{count}-", match.group())

    return _SVG.sub(own, markup)
