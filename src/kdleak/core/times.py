"""When each command last ran here. State of this folder, not a result: results are the same bytes at any speed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from kdleak.core.errors import KdleakError
from kdleak.core.files import write_json

if TYPE_CHECKING:
    from kdleak.core.paths import Project


class Span(NamedTuple):
    """Seconds since the epoch."""

    start: float
    end: float


@contextmanager
def timed(project: Project, stage: str, name: str) -> Iterator[None]:
    """Note when the block began and ended, once it has ended well; it does not fail where that cannot be noted."""
    start = time.time()
    yield
    with suppress(KdleakError):
        write_json({"start": start, "end": time.time()}, project.times(stage, name))


def span_of(project: Project, stage: str, name: str) -> Span | None:
    """When the command last ran to its end in this folder; None where there is no note, or a damaged one."""
    try:
        note = json.loads(project.times(stage, name).read_text(encoding="utf-8"))
        return Span(float(note["start"]), float(note["end"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
