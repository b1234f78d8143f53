"""The measure and judge stages of a test's project, as DVC runs them."""

from __future__ import annotations

from kdleak.config.schema import Params
from kdleak.core.paths import Project
from kdleak.core.variants import BASELINE, CONTROL
from kdleak.data.canaries import write_canaries
from kdleak.pipeline.judge import judge_model
from kdleak.pipeline.measure import measure_base, measure_model
from kdleak.pipeline.passes import write_passes


def audit(project: Project, params: Params, *names: str) -> None:
    """Measure the bases, the no-KD student and the models `names`, then judge these in their order; canaries are drawn
    where none are. The no-KD student stands for the control's too: neither has met the teacher."""
    if not project.canaries.is_file():
        write_canaries(params.canaries.model_copy(update={"each": 1, "references": 20}), params.seed, project)
    for name in dict.fromkeys(("base", BASELINE, *names)):
        measure_model(name, params, project)
    write_passes(measure_base(project.model(BASELINE), params, project), project.passes(CONTROL))
    for name in names:
        judge_model(name, params, project)
