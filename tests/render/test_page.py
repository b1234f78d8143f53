"""The shell of a report and its figures."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib import resources

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdleak.render import charts, wording
from kdleak.render.blocks import (
    Absent,
    Badge,
    Block,
    Bullets,
    Callout,
    Chart,
    Code,
    Details,
    Marked,
    Paragraph,
    SideBySide,
    Strong,
    Table,
)
from kdleak.render.charts import Estimate
from kdleak.render.page import Page, Section
from kdleak.render.palette import STYLES
from kdleak.render.roc import _thinned, roc
from kdleak.render.templates import TEMPLATES

VOID = {"meta", "link", "br", "img", "path", "use", "rect"}


class _Balance(HTMLParser):
    """Refuses markup whose elements do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.ids += [value for key, value in attrs if key == "id"]


def heatmap() -> str:
    return charts.heatmap(["kd", "sft"], ["loss", "zlib"], np.array([[0.8, np.nan], [0.5, 0.51]]))


def curves() -> str:
    rates = np.linspace(0, 1, 50)
    return roc({"kd": (rates, np.sqrt(rates)), "sft": (rates, rates)}, 0.01)


def whole() -> str:
    twice = SideBySide(Chart(heatmap(), "one"), Chart(heatmap(), "two"))
    parts = [Section("First part", [twice, Chart(curves(), "three")]), Section("Second", [Callout("x")])]
    return Page("A report", parts).html()


@given(st.text(max_size=30))
def test_what_is_no_block_is_escaped_everywhere(text):
    blocks = [
        text,
        Paragraph(text, Strong(text)),
        Table([text], [[text], [Code(text)]], text),
        Marked(text),
        Absent(text),
    ]
    blocks += [Bullets([text]), Details(text, text), Callout(text), Badge(text)]
    rendered = Page(text, [Section(text or "x", blocks, text)], text, [text], text).html()
    inner = rendered.split("<body>")[1]
    assert "<script" not in inner and not re.search(r"<(?!/?[a-z]|!)", inner)
    assert "<b>" not in str(Table(["a"], [["<b>"]])) and "<strong>&lt;b&gt;" in str(Paragraph(Strong("<b>")))
    assert 'aria-label="&#34;&lt;"' in str(Chart("<svg ></svg>", '"<'))


def test_every_block_has_its_macro_and_nests_in_any_other():
    every = [
        Strong("x"),
        Marked("a `b` c"),
        Badge("x"),
        Code("x"),
        Bullets([Code("x")]),
        Callout(Bullets([Strong("x")])),
    ]
    assert str(Marked("a `b` c")) == "a <code>b</code> c"
    table = Table(["a", "b"], [[block, block] for block in every])
    parser = _Balance()
    parser.feed(Page("x", [Section("x", [Details("x", SideBySide(table, table))])]).html())
    assert parser.open == []
    macros = TEMPLATES.get_template("blocks.html.j2").module

    def kinds(block: type[Block]) -> set[str]:
        return {block.__name__} | {name for each in block.__subclasses__() for name in kinds(each)}

    assert all(hasattr(macros, name.lower()) for name in kinds(Block) if name not in ("Block", "_Text"))


def test_a_page_asks_for_nothing_and_its_elements_nest():
    rendered = whole()
    parser = _Balance()
    parser.feed(rendered)
    assert parser.open == [] and len(parser.ids) == len(set(parser.ids))
    assert not re.search(r'(?:src|href)="(?!#|data:,)', rendered) and "@import" not in rendered
    assert not re.search(r"url\((?!#)", rendered) and "<script" not in rendered
    for used in re.findall(r'(?:href="#|url\(#)([^")]+)', rendered):
        assert used in parser.ids
    assert '<a href="#first-part">First part</a>' in rendered and "favicon" not in rendered


def test_the_same_page_is_the_same_bytes_and_holds_no_date():
    assert whole() == whole()
    assert not re.search(r"\b20[0-9]{2}-[01][0-9]", whole())


def test_words_in_a_figure_stay_words_in_the_pages_font():
    assert ">loss<" in heatmap() and "font-family" not in heatmap()
    assert ".80" in heatmap() and "nan" not in heatmap().lower()


def test_every_technique_has_a_look_of_its_own():
    looks = [(s.colour, s.marker, s.hollow) for s in STYLES.values()]
    assert len(set(looks)) == len(looks)
    lines = [(s.colour, s.line) for s in STYLES.values()]
    assert len(set(lines)) == len(lines)


def test_a_figure_is_drawn_from_what_is_known():
    half = {"kd": [Estimate(0.8, (0.7, 0.9)), Estimate(None), Estimate(0.6, (None, None))]}
    assert charts.dots(["a", "b", "c"], half, xlabel="AUC", reference=0.5)
    assert charts.curves({"kd": ([0, 1, 2], half["kd"]), "sft": ([0], [Estimate(None)])}, xlabel="x", ylabel="y")
    points = {"kd": (half["kd"][0], half["kd"][2]), "gkd": (Estimate(None), half["kd"][0])}
    shown = charts.scatter(points, xlabel="x", ylabel="y")
    assert ">KD<" in shown and ">GKD<" not in shown


def test_thinning_a_step_curve_keeps_its_corners():
    fpr, tpr = np.array([0, 0, 0, 0.5, 1.0, 1.0]), np.array([0, 0.2, 0.4, 0.4, 0.4, 1.0])
    thin = _thinned(fpr, tpr)
    np.testing.assert_array_equal(thin, ([0, 0, 1, 1], [0, 0.4, 0.4, 1]))


@pytest.mark.parametrize(
    ("value", "shown"), [(0.8241, ".824"), (-0.0123, "-.012"), (-0.00001, ".000"), (1.25, "1.250"), (None, "–")]
)
def test_numbers_are_written_as_the_field_writes_them(value, shown):
    assert wording.number(value) == shown


def test_intervals_that_are_not_known_are_not_written():
    assert wording.with_interval(0.5, (None, None)) == ".500"
    assert wording.with_interval(0.1, (-0.2, 0.3), sign=True) == "+.100 [-.200, +.300]"
    assert wording.listed(["a", "b", "c"]) == "a, b and c" and wording.listed(["a"]) == "a"


def test_a_chart_scales_with_the_page_instead_of_being_cut():
    style = (resources.files("kdleak.render") / "templates/page.css").read_text()
    assert "figure svg { display: block; max-width: 100%; height: auto;" in style and "min-width: 34rem" not in style
    for drawing in (heatmap(), curves()):
        assert re.search(r"<svg [^>]*viewBox=", drawing)


def test_one_model_has_one_colour_in_every_chart():
    dots = charts.dots(["a"], {name: [Estimate(0.5)] for name in ("kd", "sft")}, xlabel="x")
    for name in ("kd", "sft"):
        colour = STYLES[name].colour.lower()
        assert colour in dots and colour in curves()
