"""The one exception that a user is meant to read, and what may be said of the others.

Another library's exception may quote a record. Its text is printed by nobody but `--debug --show-text`.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path


class KdleakError(Exception):
    """A failure with a known cause: its text is one line that names the place and the remedy.

    The command line prints it and exits with 1; nothing is half-written.
    """

    def __str__(self) -> str:
        """One line, whatever stands in the names it quotes: no line break and no terminal's control sequence."""
        return "".join(c if c.isprintable() else " " for c in super().__str__())


@contextmanager
def private(what: str) -> Iterator[None]:
    """Records are in hand within the block: a foreign exception becomes a KdleakError of `what` and its type alone.

    what: file, row and deed, nothing out of a record. A KdleakError, whose text is kdleak's own, passes as it is.
    """
    try:
        yield
    except KdleakError:
        raise
    except Exception as error:
        raise KdleakError(
            f"{what} failed ({type(error).__name__}; its text may quote a record: --debug --show-text)"
        ) from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """What the system refuses within the block is said of `path`: of a file that was opened well and fails as it is
    read, it names none."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def place_of(error: BaseException) -> str:
    """Where in kdleak `error` came up: file and line, never its text."""
    frames = traceback.extract_tb(error.__traceback__)
    package = Path(__file__).parents[1]
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(package)] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "an unknown place"


def traceback_of(error: BaseException, show_text: bool = False) -> str:
    """The traceback of `error` and of what it came from; texts that are not kdleak's own only with `show_text`."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    before = f"{traceback_of(cause, show_text)}\nfrom which came:\n\n" if cause is not None else ""
    said = str(error) if show_text or isinstance(error, KdleakError) else "(text withheld; --show-text shows it)"
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{before}Traceback (most recent call last):\n{frames}{type(error).__name__}: {said}\n"


def brief(error: BaseException, at_most: int = 160) -> str:
    """What another library's exception says, on one line; its type where it says nothing. Not for a record's reader."""
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
