"""Progress on the terminal, with the time that is left: a bar where there is one, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from kdleak.core.distributed import is_main


class Advance(Protocol):
    """Called when `n` further units of the work are done; figures are shown beside the bar."""

    def __call__(self, n: int = 1, **figures: float) -> None: ...


@contextmanager
def progress(label: str, total: int, every_s: float = 15.0) -> Iterator[Advance]:
    """Show how much of `total` units of the work called `label` is done, on standard error, by the main process."""
    if not is_main():
        yield lambda n=1, **figures: None
    elif sys.stderr.isatty():
        with _bar(label, total) as advance:
            yield advance
    else:
        yield _lines(label, total, every_s)


@contextmanager
def _bar(label: str, total: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(label),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total, figures="")

        def advance(n: int = 1, **figures: float) -> None:
            bar.update(task, advance=n, figures=_text(figures))

        yield advance


def _lines(label: str, total: int, every_s: float) -> Advance:
    started = shown = time.monotonic()
    done = 0

    def advance(n: int = 1, **figures: float) -> None:
        nonlocal shown, done
        done += n
        now = time.monotonic()
        if now - shown >= every_s:
            shown = now
            left = _clock((now - started) / done * max(0, total - done)) if done else "?"
            print(f"{label}: {done}/{total}, {left} left  {_text(figures)}".rstrip(), file=sys.stderr, flush=True)

    return advance


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


def _text(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
