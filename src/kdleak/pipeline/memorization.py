"""The memorization part of the judge stage: what one model repeats of members, nonmembers, facts and canaries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.core.files import read_parquet, write_json, write_parquet
from kdleak.data.sides import as_roles, as_sides
from kdleak.memorization.exposure import log_perplexity
from kdleak.memorization.report import Memorization, memorization_report
from kdleak.memorization.tables import fact_table, record_table

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.auditing.passes import Subject
    from kdleak.config.schema import Params
    from kdleak.core.paths import Project
    from kdleak.core.variants import Variant
    from kdleak.pipeline.passes import ModelPasses


def judge_memorization(
    variant: Variant, passes: ModelPasses, records: pd.DataFrame, subject: Subject, params: Params, project: Project
) -> None:
    """Write memorization.json, memorization.parquet, facts.parquet and canaries.parquet of a model.

    A student of a teacher is compared with it and with the no-KD student, whose tables must be there.
    """
    encoder, canaries = subject.encoder, read_parquet(project.canaries)
    assert passes.audited.continuations is not None and passes.canaries is not None  # the stage measure makes both
    own = Memorization(
        record_table(records, passes.audited.continuations, encoder.tokenizer, params.memorization.shortest),
        fact_table(records, subject.encoded, encoder, passes.audited.statistics),
        canaries[["record_id", "repetitions"]].assign(log_perplexity=log_perplexity(passes.canaries)),
    )
    others = {}
    if variant.is_distilled:
        others = {"teacher": _read(variant.teacher, project), "no_kd": _read(variant.baseline, project)}
    report = memorization_report(own, **others)
    write_parquet(as_roles(own.records), project.memorization_table(variant))
    write_parquet(as_roles(own.facts), project.facts(variant))
    write_parquet(own.canaries, project.canary_scores(variant))
    write_json({"tokens": params.memorization.tokens, **report}, project.memorization(variant), digits=6)


def _read(name: Variant, project: Project) -> Memorization:
    """The tables that the stage wrote for another model."""
    records, facts = (as_sides(read_parquet(path)) for path in (project.memorization_table(name), project.facts(name)))
    return Memorization(records, facts, read_parquet(project.canary_scores(name)))
