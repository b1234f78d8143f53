"""Every audit of one model in one process: their imports take longer than some of the audits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.audit.memorization_stage import measure_memorization
from kdleak.audit.stage import attack_model, measure_blocks
from kdleak.audit.utility import measure_utility
from kdleak.seconds import timed_part

if TYPE_CHECKING:
    from kdleak.config import Params
    from kdleak.paths import Project

_AUDITS = {
    "membership": attack_model,
    "blocks": measure_blocks,
    "memorization": measure_memorization,
    "utility": measure_utility,
}


def measure_model(name: str, params: Params, project: Project) -> None:
    """Write all result files of `teacher`, or of the student that `name` made.

    Forward passes are kept in the project's cache, so one that was stopped goes on with the passes that it lacks.
    """
    for part, audit in _AUDITS.items():
        with timed_part(project, part):
            audit(name, params, project)
