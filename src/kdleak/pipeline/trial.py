"""One run of the sweep over learning rates: a technique at a multiple of its recipe's rate, trained and audited."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from kdleak.attacks import ATTACKS
from kdleak.core.distributed import is_main
from kdleak.core.errors import KdleakError
from kdleak.core.variants import Variant
from kdleak.distill.recipes import recipe
from kdleak.models.checkpoints import load_tokenizer
from kdleak.pipeline.distill import make_student
from kdleak.pipeline.measure import measure_run
from kdleak.pipeline.membership import judge_membership
from kdleak.pipeline.passes import audited_records
from kdleak.pipeline.utility import judge_utility

if TYPE_CHECKING:
    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


def run_trial(method: str, rate: str, params: Params, project: Project) -> None:
    """Write results/students/<method>/rates/<rate>/: training.json, membership.json, scores.parquet and utility.json.

    rate: an entry of study.lr_multipliers, as it is written there. The student itself is not kept.
    """
    multiplier = _multiplier(method, rate, params)
    variant, settings = Variant(method, rate=multiplier), at_rate(params, method, multiplier)
    make_student(variant, settings, project)
    declared = [each for name in params.audit.attacks for each in ATTACKS[name].needs.passes]
    passes = measure_run(variant, declared, settings, project, memorization=False)
    if is_main():
        judge_membership(variant, passes, audited_records(project), settings, project)
        judge_utility(variant, passes, load_tokenizer(project.model(variant)), project)
        project.roc(variant).unlink()  # the curves of the sweep are drawn nowhere
        shutil.rmtree(project.model(variant))


def at_rate(params: Params, method: str, multiplier: float) -> Params:
    """`params` with the learning rate of one recipe multiplied."""
    recipes = params.kd.recipes
    changed = recipes.get(method, {}) | {"lr": multiplier * recipe(method, params.kd).lr}
    kd = params.kd.model_copy(update={"recipes": recipes | {method: changed}})
    return params.model_copy(update={"kd": kd})


def _multiplier(method: str, rate: str, params: Params) -> float:
    if method not in params.study.methods:
        raise KdleakError(f"'{method}' is not in study.methods; add it to params.yaml")
    known = {str(multiplier): multiplier for multiplier in params.study.lr_multipliers}
    if rate not in known:
        given = ", ".join(known) or "nothing"
        raise KdleakError(f"'{rate}' is not in study.lr_multipliers, which holds {given}; add it to params.yaml")
    return known[rate]
