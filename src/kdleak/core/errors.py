"""The one exception that a user is meant to read."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class KdleakError(Exception):
    """A failure with a known cause: its text is one line that names the place and the remedy.

    The command line prints it and exits with 1; nothing is half-written.
    """

    def __str__(self) -> str:
        """One line, whatever stands in the names it quotes: no line break and no terminal's control sequence."""
        return "".join(c if c.isprintable() else " " for c in super().__str__())


def brief(error: BaseException, at_most: int = 160) -> str:
    """What another library's exception says, on one line; its type where it says nothing."""
    return " ".join(str(error).split())[:at_most] or type(error).__name__


def nearest(name: object, valid: Iterable[object]) -> str:
    """Say which of `valid` was most likely meant: `did you mean 'kd'?`, else the whole list."""
    names = [str(v) for v in valid]
    close = get_close_matches(str(name), names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return "valid: " + ", ".join(names)


def shown(value: object) -> str:
    """A wrong value, short enough for a line."""
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
