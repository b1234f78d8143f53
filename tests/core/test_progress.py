"""Progress is one signature: what was done, of how much."""

from __future__ import annotations

import sys

import pytest

from kdleak.core import progress as module
from kdleak.core.progress import progress


def test_without_a_terminal_a_line_now_and_then_says_how_much_is_left(capsys, monkeypatch):
    now = iter([0.0, 10.0, 20.0, 29.0, 100.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    with progress("scoring", 400) as advance:
        for _ in range(4):
            advance(50, loss=1.23456)
    assert capsys.readouterr().err.splitlines() == [
        "scoring: 100/400, 1:00 left  loss 1.235",
        "scoring: 200/400, 1:40 left  loss 1.235",
    ]


@pytest.mark.parametrize("resumed", [0, 7])
def test_on_a_terminal_a_bar_counts_the_same_units(capsys, monkeypatch, resumed):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("scoring", 10) as advance:
        advance(resumed)
        advance()
        advance(2, loss=0.5)
    assert capsys.readouterr().err.count("Traceback") == 0
