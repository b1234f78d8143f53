"""How long each stage takes. State of this folder, not a result: results are the same bytes at any speed."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from kdleak.core.errors import KdleakError
from kdleak.core.files import replacing_file

if TYPE_CHECKING:
    from kdleak.core.paths import Project


@contextmanager
def timed_stage(project: Project) -> Iterator[None]:
    """Note the seconds of the DVC stage that the block is, once it has ended well; outside DVC nothing."""
    started = time.perf_counter()
    try:
        yield
    except SystemExit as ended:
        if not ended.code:
            _note(project, time.perf_counter() - started)
        raise
    _note(project, time.perf_counter() - started)


@contextmanager
def timed_part(project: Project, part: str) -> Iterator[None]:
    """Note the seconds of a part of the DVC stage, once it has ended well; its start-up belongs to no part."""
    started = time.perf_counter()
    yield
    _note(project, time.perf_counter() - started, part)


def read_seconds(project: Project) -> dict[str, float]:
    """Stage -> seconds of its last run here; a part of one as `stage: part`. A damaged note is left out."""
    files = sorted(project.seconds.glob("*.json")) if project.seconds.is_dir() else []
    found = {}
    for file in files:
        with suppress(OSError, ValueError, KeyError, TypeError):
            note = json.loads(file.read_text(encoding="utf-8"))
            found[note["stage"]] = float(note["seconds"])
    return found


def _note(project: Project, seconds: float, part: str = "") -> None:
    """A file a stage: two stages that end at once do not meet. A stage that has ended well does not fail for it."""
    stage = os.environ.get("DVC_STAGE", "").rpartition(":")[2]  # study/dvc.yaml:distill@kd
    if stage:
        stage = f"{stage}: {part}" if part else stage
        path = project.seconds / f"{re.sub(r'[^A-Za-z0-9@._-]', '_', stage)}.json"
        with suppress(KdleakError), replacing_file(path) as fresh:
            fresh.write_text(json.dumps({"stage": stage, "seconds": round(seconds, 2)}) + "\n", encoding="utf-8")
