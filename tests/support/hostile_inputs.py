"""Hostile inputs, each put to kdleak's own `main`: what was refused in one line, what was handled, what broke."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from kdleak.cli import main
from kdleak.core.errors import traceback_of
from tests.support.private_marks import MARK, leaks

Input = TypeVar("Input")
FOLDER = Path(__file__).parents[1] / "robustness" / "hostile"
TABLES = {path.stem: yaml.safe_load(path.read_text()) for path in FOLDER.glob("*.yaml")}
#: Stand in inputs for what must never be printed, as the mark stands in all records.
PRIVATE, SECRET = "PRIVATE", "SECRET"
UNSAID = (PRIVATE, SECRET, MARK)
#: `make hostile` tries all inputs, `make test` one in so many.
ONE_IN = 1 if os.environ.get("KDLEAK_HOSTILE") else 15
#: area -> inputs, refused, handled.
COUNTS: dict[str, tuple[int, int, int]] = {}


def chosen(inputs: Sequence[Input]) -> Sequence[Input]:
    """The inputs of a table that are tried in this run."""
    return inputs[::ONE_IN]


def bomb(entry: dict[str, Any]) -> str:
    """A text repeated, before and after."""
    return entry.get("begin", "") + entry["repeat"] * entry["times"] + entry.get("end", "")


def one_clear_line(code: int, said: str) -> bool:
    """Whether a command that ended with `code`, having said so much on standard error, refused as it should."""
    lines = said.splitlines()
    clear = code == 1 and len(lines) == 1 and lines[0].startswith("kdleak: error: ") and len(lines[0]) < 700
    return clear and not any(word in said for word in ("unforeseen", "Traceback", *UNSAID))


def noting(line: Callable[[Exception], str], note: Callable[[str], object]) -> Callable[[Exception], str]:
    """`line`, an error's one line for a user, that notes the traceback which `--debug` prints above it, without the
    lines of source in it: constants of the code are called PRIVATE too."""

    def noted(error: Exception) -> str:
        note("".join(each for each in traceback_of(error).splitlines(keepends=True) if not each.startswith("    ")))
        return line(error)

    return noted


class Tried:
    """The inputs of one area, each through `main`; what breaks a promise is collected. What is printed, and what
    `--debug` would print beside, is searched for private text."""

    def __init__(self, area: str, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture):
        self.area, self._patch, self._captured = area, patch, captured
        self.broken: list[str] = []
        self._refused: dict[str, bool] = {}

    def __call__(self, name: object, work: Callable[[], object] = int, refused: bool = False, argv: list | None = None):
        """`work`, or the command line `argv`. refused: whether the input must not be taken."""
        self._captured.readouterr()
        code, tracebacks = 0, []
        with self._patch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if argv is None:
                patch.setattr(main, "app", work)
            else:
                patch.setattr(sys, "argv", argv)
            patch.setattr(main, "_line", noting(main._line, tracebacks.append))
            try:
                main.main()
            except SystemExit as ended:
                code = int(ended.code or 0)
        out, said = self._captured.readouterr()
        self.ended(name, code, said, refused, "".join([out, *tracebacks]))

    def ended(self, name: object, code: int, said: str, refused: bool = False, beside: str = "") -> None:
        """The input `name` was tried; so the command ended. An input that several commands read is one.

        said: on standard error. beside: what else was said, and the traceback that `--debug` shows.
        """
        if any(word in said + beside for word in UNSAID):
            self.broken.append(f"{name!r:.150} is printed: {(said + beside)[-1500:]!r}")
        taken = code == 0 and not refused
        self._refused[repr(name)] = self._refused.get(repr(name), False) or not taken
        if not taken and not one_clear_line(code, said):
            self.broken.append(f"{name!r:.150} -> {code}: {said[:300]!r}")

    @property
    def refused(self) -> int:
        return sum(self._refused.values())

    def done(self, folder: Path | None = None, inputs: tuple[str, ...] = ()) -> None:
        """All were tried. folder: where; no file of it but the entries `inputs` may hold a record's text."""
        if folder is not None:
            self.broken += [f"{path} holds private text" for path in leaks(folder, inputs)]
        COUNTS[self.area] = (len(self._refused), self.refused, len(self._refused) - self.refused)
        assert not self.broken, f"{len(self.broken)} broken:\n" + "\n".join(self.broken)
