"""Progress on the terminal: a bar where there is one, a line now and then where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kdleak.core.distributed import is_main

#: Called with (done, total, figures); figures are shown beside the bar.
Progress = Callable[[int, int, dict], None]


@contextmanager
def progress(label: str, every_s: float = 15.0) -> Iterator[Progress]:
    """Show how far the work called `label` has come, on standard error."""
    if not is_main():
        yield lambda done, total, figures: None
    elif sys.stderr.isatty():
        with _bar(label) as show:
            yield show
    else:
        yield _lines(label, every_s)


@contextmanager
def _bar(label: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn(label),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None, figures="")

        def show(done: int, total: int, figures: dict) -> None:
            bar.update(task, completed=done, total=total, figures=_text(figures))

        yield show


def _lines(label: str, every_s: float) -> Progress:
    last = time.monotonic()

    def show(done: int, total: int, figures: dict) -> None:
        nonlocal last
        if time.monotonic() - last >= every_s:
            last = time.monotonic()
            print(f"{label}: {done}/{total} {_text(figures)}".rstrip(), file=sys.stderr, flush=True)

    return show


def _text(figures: dict) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in figures.items())


def counting(show: Progress, total: int) -> Callable[[int], None]:
    """For work that reports how much it has just done: adds up, and shows the sum."""
    done = 0

    def count(n: int) -> None:
        nonlocal done
        done += n
        show(done, total, {})

    return count
