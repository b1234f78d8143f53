"""Sections of the study's report: a file in this folder whose function bears `@section` is one, and is found by it."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdleak.report.study.findings import Finding
    from kdleak.report.study.published import Published
    from kdleak.report.study.results import Study


@dataclass(frozen=True)
class Report:
    """What sections are made from: the results, the verdicts on the claims, and the paper's own figures."""

    study: Study
    findings: Sequence[Finding]
    published: Published


@dataclass(frozen=True)
class Content:
    """What a section says. blocks: of render.blocks, in order; lead: the answer, before any chart.

    gist: one sentence for the summary that opens the page. alarm: why no figure of the page is to be trusted; it stands
    above everything.
    """

    blocks: Sequence[object]
    lead: str = ""
    gist: str = ""
    alarm: str = ""


@dataclass(frozen=True)
class ReportSection:
    title: str
    order: int
    content: Callable[[Report], Content]


#: By title. `sections()` gives all of them.
SECTIONS: dict[str, ReportSection] = {}


def section(title: str, *, order: int) -> Callable[[Callable[[Report], Content]], Callable[[Report], Content]]:
    """Register the decorated function as a section; sections stand by rising `order`."""

    def register(content: Callable[[Report], Content]) -> Callable[[Report], Content]:
        SECTIONS[title] = ReportSection(title, order, content)
        return content

    return register


def sections() -> list[ReportSection]:
    """Every registered section, in the order of the page."""
    for module in pkgutil.iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    return sorted(SECTIONS.values(), key=lambda each: each.order)
