"""The control stage: a student of a teacher that saw no member, and what it says of the audited records.

Whatever an attack finds in this student, no student gave away: the attack hears it elsewhere (`attacks.teacher_aware`
is told by the audited teacher what its memory looks like, and must find none of it here).
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from kdleak.core.distributed import is_main
from kdleak.core.variants import CONTROL
from kdleak.pipeline.distill import make_student
from kdleak.pipeline.measure import measure_base
from kdleak.pipeline.passes import write_passes
from kdleak.pipeline.teacher import fine_tune_teacher

if TYPE_CHECKING:
    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


def make_control(params: Params, project: Project) -> None:
    """Write the passes of the control student, and training.json of it and of its teacher; neither model is kept."""
    fine_tune_teacher(params, project, CONTROL.teacher)
    make_student(CONTROL, params, project)
    passes = measure_base(project.model(CONTROL), params, project)
    if is_main():
        write_passes(passes, project.passes(CONTROL))
        for run in (CONTROL, CONTROL.teacher):
            shutil.rmtree(project.model(run))
