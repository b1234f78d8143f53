"""docs/defences.md lists the registered defences in their own words."""

from __future__ import annotations

from kdleak.defend.defences import DEFENCES
from kdleak.defend.registry import Acts, Defence
from tests.support.pipeline_project import ROOT

PAGE = ROOT / "docs" / "defences.md"


def row(options: type[Defence]) -> str:
    knob = f"`{options.knob}`, {options.model_fields[options.knob].default}" if options.knob else "–"
    cells = (f"`{options.name}`", options.acts_on, knob, options.source, options.protects, options.does_not_protect)
    return f"| {' | '.join(map(str, cells))} |"


def table() -> str:
    order = [place for place in Acts]
    rows = sorted((d for d in DEFENCES.values() if d.acts_on), key=lambda d: (order.index(d.acts_on), d.name))
    head = "| defence | acts on | knob, default | source | protects | does not protect |"
    return "\n".join([head, "|---|---|---|---|---|---|", *map(row, rows)])


def test_the_page_has_a_row_for_each_defence_in_its_own_words():
    assert f"<!-- defences -->\n{table()}\n<!-- end -->" in PAGE.read_text()
