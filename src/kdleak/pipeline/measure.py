"""Every audit of one model in one process: their imports take longer than some of the audits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.pipeline.membership import attack_model, measure_blocks
from kdleak.pipeline.memorization import measure_memorization
from kdleak.pipeline.utility import measure_utility

if TYPE_CHECKING:
    from kdleak.config.schema import Params
    from kdleak.core.paths import Project

_AUDITS = (attack_model, measure_blocks, measure_memorization, measure_utility)


def measure_model(name: str, params: Params, project: Project) -> None:
    """Write all result files of `teacher`, or of the student that `name` made.

    Forward passes are kept in the project's cache, so one that was stopped goes on with the passes that it lacks.
    """
    for audit in _AUDITS:
        audit(name, params, project)
