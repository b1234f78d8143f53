"""Under which defence a student was made, by what its training and its teacher's wrote down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kdleak.core.files import read_json
from kdleak.core.variants import BASELINE, TEACHER

if TYPE_CHECKING:
    from kdleak.core.paths import Project


def defence_of(method: str, project: Project) -> Mapping[str, Any] | None:
    """The `defence` of training.json (`Defence.described`) of the teacher, or of the student that `method` made of it.

    None where there was none, and for the no-KD student, which has no teacher. Files that are not there say nothing.
    """
    for name in (method,) if method == BASELINE else (method, TEACHER):
        path = project.training(name)
        if path.is_file() and (defence := read_json(path).get("defence")):
            return defence
    return None
