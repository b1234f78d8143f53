"""Membership and blocks, two parts of the measure stage: attacks on one model, and the exposure of each block."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from kdleak.attacks.mope import PERTURBED_BLOCKS, noise_of
from kdleak.attacks.perturbation import PerturbationScores
from kdleak.auditing import engine
from kdleak.auditing.blocks import block_report
from kdleak.auditing.comparisons import against_baseline, exposed_overlap, inherited
from kdleak.auditing.membership import KEYS
from kdleak.auditing.passes import ModelRunner, PassRequest
from kdleak.core.distributed import is_main
from kdleak.core.errors import KdleakError
from kdleak.core.files import read_parquet, write_csv, write_json, write_parquet
from kdleak.core.variants import Variant
from kdleak.data.sides import MEMBER, as_roles, as_sides
from kdleak.pipeline import passes
from kdleak.stats import roc_curve

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


def attack_model(name: str | Variant, params: Params, project: Project) -> None:
    """Write scores.parquet, membership.json and roc.csv of `teacher`, or of the student that `name` made.

    A student is compared with the no-KD student and with the teacher, whose scores must be there.
    """
    records, settings = passes.audited_records(project), passes.settings(params, project)
    settings = replace(settings, options={**settings.options, "distilled": Variant.of(name).is_distilled})
    audit = engine.run(passes.subjects(name, records, params, project), records, settings)
    if audit is None:
        return  # the passes are shared, the statistics of them are the main process's
    report = audit.report | {"not_applicable": audit.left_out}
    if (variant := Variant.of(name)).is_distilled:
        others = (variant.teacher, variant.baseline)
        teacher, baseline = (as_sides(read_parquet(project.scores(other))) for other in others)
        report["controls"]["no_kd"] = against_baseline(audit.scores, baseline, groups=audit.groups)
        report["teacher"] = {
            "inherited": inherited(audit.scores, teacher, audit.groups),
            "exposed_overlap": exposed_overlap(audit.scores, teacher, baseline),
        }
    write_parquet(as_roles(audit.scores), project.scores(name))
    write_csv(roc_table(audit.scores), project.roc(name))
    write_json(report, project.membership(name), digits=6)


def measure_blocks(name: str | Variant, params: Params, project: Project) -> None:
    """Write blocks.json and block_scores.parquet of a model; a student's are compared with the no-KD student's."""
    records = passes.audited_records(project)
    subject = passes.target(name, records, params, project)
    results = ModelRunner(records, passes.settings(params, project)).run(
        subject, PassRequest(extra=(PERTURBED_BLOCKS,))
    )
    if PERTURBED_BLOCKS.name in results.refused:
        raise KdleakError(results.refused[PERTURBED_BLOCKS.name])
    if not is_main():
        return
    blocks = [PerturbationScores(drops) for drops in results.computed[PERTURBED_BLOCKS.name]]
    variant, baseline = Variant.of(name), None
    if variant.is_distilled:
        baseline = as_sides(read_parquet(project.block_scores(variant.baseline)))
    keys = records[list(KEYS)]
    table = keys.assign(**{f"block_{i}": block.scores for i, block in enumerate(blocks)})
    write_parquet(as_roles(table), project.block_scores(name))
    noise = noise_of(params.audit.model_dump(), "blocks", params.seed)
    groups = dict(zip(records["record_id"], records["group_id"].astype(str), strict=True))
    write_json(block_report(keys, blocks, noise, baseline, groups), project.blocks(name), digits=6)


def roc_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Columns attack, fpr, tpr: the curve of every attack, at its distinct thresholds."""
    import pandas as pd

    member = (scores["role"] == MEMBER).to_numpy()
    curves = []
    for name in (column for column in scores.columns if column not in KEYS):
        values = scores[name].to_numpy()
        defined = np.isfinite(values)
        fpr, tpr = roc_curve(values[member & defined], values[~member & defined])
        curves.append(pd.DataFrame({"attack": name, "fpr": fpr.round(6), "tpr": tpr.round(6)}))
    return pd.concat(curves, ignore_index=True)
