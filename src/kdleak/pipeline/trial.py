"""One run beside a technique's default one: distilled with one thing changed, audited, its student not kept."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from kdleak.attacks import ATTACKS
from kdleak.core.distributed import is_main
from kdleak.core.errors import KdleakError
from kdleak.core.variants import Variant
from kdleak.distill.recipes import varied
from kdleak.models.checkpoints import load_tokenizer
from kdleak.pipeline.distill import make_student
from kdleak.pipeline.measure import measure_run
from kdleak.pipeline.membership import judge_membership
from kdleak.pipeline.passes import audited_records
from kdleak.pipeline.utility import judge_utility

if TYPE_CHECKING:
    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


def run_trial(method: str, name: str, params: Params, project: Project) -> None:
    """Write results/students/<method>/runs/<name>/: training.json, membership.json, scores.parquet and utility.json.

    name: a run of `params.study.variants`. Teacher, text of the teacher and no-KD student are those of the default run,
    so are all seeds of the audit. Attacks that need forward passes of their own are left out.
    """
    variant = _asked_for(method, name, params)
    make_student(variant, varied(params, variant), project)
    passes = measure_run(variant, (), params, project, memorization=False)
    if is_main():
        attacks = [attack for attack in params.audit.attacks if not ATTACKS[attack].needs.passes]
        audited = params.model_copy(update={"audit": params.audit.model_copy(update={"attacks": attacks})})
        judge_membership(variant, passes, audited_records(project), audited, project)
        judge_utility(variant, passes, load_tokenizer(project.model(variant)), project)
        project.roc(variant).unlink()  # its curves are drawn nowhere
        shutil.rmtree(project.model(variant))


def _asked_for(method: str, name: str, params: Params) -> Variant:
    known = {variant.name: variant for variant in params.study.variants if variant.method == method}
    if name not in known:
        raise KdleakError(
            f"'{name}' of '{method}' is no run of the lists in section study, which ask for "
            f"{', '.join(known) or 'none of it'}; add it to params.yaml"
        )
    return known[name]
