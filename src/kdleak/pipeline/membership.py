"""Membership and blocks, two parts of the judge stage: attacks on one model, and the exposure of each block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak.attacks.mope import PERTURBED_BLOCKS, noise_of
from kdleak.attacks.perturbation import PerturbationScores
from kdleak.auditing import engine
from kdleak.auditing.blocks import block_report
from kdleak.auditing.comparisons import against_baseline, exposed_overlap, inherited
from kdleak.auditing.membership import KEYS
from kdleak.auditing.settings import EngineSettings
from kdleak.core.files import read_parquet, write_csv, write_json, write_parquet
from kdleak.data.sides import MEMBER, as_roles, as_sides
from kdleak.models.checkpoints import load_tokenizer
from kdleak.pipeline.passes import read_passes, reference_files, tuning_of
from kdleak.stats import roc_curve

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project
    from kdleak.core.variants import Variant
    from kdleak.pipeline.passes import ModelPasses


def judge_membership(
    variant: Variant, passes: ModelPasses, records: pd.DataFrame, params: Params, project: Project
) -> None:
    """Write scores.parquet, membership.json and roc.csv of a model.

    A student is compared with the no-KD student and with the teacher, whose scores must be there.
    """
    settings = EngineSettings(
        params.audit.attacks,
        params.seed,
        permutations=params.audit.permutations,
        ngram=params.checks.ngram,
        cache=project.cache,
    )
    needed, files = engine.references_needed(params.audit.attacks), reference_files(variant, project)
    references = {role: read_passes(path).audited for role, path in files.items() if role in {*needed, engine.CONTROL}}
    tokenizers = {engine.TARGET: load_tokenizer(project.model(variant))}
    tuning = tuning_of(variant, project)
    audit = engine.judge({engine.TARGET: passes.audited, **references}, tokenizers, records, settings, tuning)
    report: dict[str, Any] = audit.report | {"not_applicable": audit.left_out}
    if variant.is_distilled:
        others = (variant.teacher, variant.baseline)
        teacher, baseline = (as_sides(read_parquet(project.scores(other))) for other in others)
        report["controls"]["no_kd"] = against_baseline(audit.scores, baseline, groups=audit.groups)
        report["teacher"] = {
            "inherited": inherited(audit.scores, teacher, audit.groups),
            "exposed_overlap": exposed_overlap(audit.scores, teacher, baseline, audit.groups),
        }
    write_parquet(as_roles(audit.scores), project.scores(variant))
    write_csv(roc_table(audit.scores), project.roc(variant))
    write_json(report, project.membership(variant), digits=6)


def judge_blocks(
    variant: Variant, passes: ModelPasses, records: pd.DataFrame, params: Params, project: Project
) -> None:
    """Write blocks.json and block_scores.parquet of a model; a student's are compared with the no-KD student's."""
    blocks = [PerturbationScores(drops) for drops in passes.audited.computed[PERTURBED_BLOCKS.name]]
    baseline = as_sides(read_parquet(project.block_scores(variant.baseline))) if variant.is_distilled else None
    keys = records[list(KEYS)]
    scores = {f"block_{i}": block.scores for i, block in enumerate(blocks)}
    table = keys.assign(**{name: each for name, each in scores.items() if np.isfinite(each).any()})
    write_parquet(as_roles(table), project.block_scores(variant))
    noise = noise_of(params.audit.model_dump(), "blocks", params.seed)
    groups = dict(zip(records["record_id"], records["group_id"].astype(str), strict=True))
    write_json(block_report(keys, blocks, noise, baseline, groups), project.blocks(variant), digits=6)


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
