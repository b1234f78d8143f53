"""What the tests of hostile inputs share, and the counts that they end with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.hostile_inputs import COUNTS, ONE_IN, Tried


@pytest.fixture
def tried(request, monkeypatch, capsys) -> Iterator[Tried]:
    for variable in ("DVC_STAGE", "KDLEAK_DEBUG", "KDLEAK_SHOW_TEXT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield Tried(request.node.name.removeprefix("test_"), monkeypatch, capsys)


def pytest_terminal_summary(terminalreporter) -> None:
    if COUNTS and ONE_IN == 1:
        total = tuple(map(sum, zip(*COUNTS.values(), strict=True)))
        for area, (inputs, refused, handled) in {**COUNTS, "all": total}.items():
            terminalreporter.line(f"{area:>22}: {inputs} inputs, {refused} refused in one line, {handled} handled")
