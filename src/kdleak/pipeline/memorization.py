"""The memorization part of the measure stage: what one model repeats of members, nonmembers, facts and canaries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.auditing.passes import ModelRunner, PassRequest
from kdleak.core.distributed import is_main
from kdleak.core.files import read_parquet, write_json, write_parquet
from kdleak.core.variants import Variant
from kdleak.data.sides import as_roles, as_sides
from kdleak.memorization.exposure import log_perplexity
from kdleak.memorization.report import Memorization, memorization_report
from kdleak.memorization.tables import fact_table, record_table
from kdleak.pipeline import passes

if TYPE_CHECKING:
    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


def measure_memorization(name: str | Variant, params: Params, project: Project) -> None:
    """Write memorization.json, memorization.parquet, facts.parquet and canaries.parquet of a model.

    A student of a teacher is compared with it and with the no-KD student, whose tables must be there.
    """
    frame, canaries = passes.audited_records(project), read_parquet(project.canaries)
    subject = passes.target(name, frame, params, project)
    runner = ModelRunner(frame, passes.settings(params, project))
    results = runner.run(subject, PassRequest(continuations=params.memorization.tokens))
    of_canaries = runner.statistics(subject, subject.encoder.encode_frame(canaries), "canaries")
    if not is_main():
        return
    assert results.continuations is not None and results.statistics is not None  # as asked for
    own = Memorization(
        record_table(frame, results.continuations, subject.encoder.tokenizer, params.memorization.shortest),
        fact_table(frame, subject.encoded, subject.encoder, results.statistics),
        canaries[["record_id", "repetitions"]].assign(log_perplexity=log_perplexity(of_canaries)),
    )
    variant, others = Variant.of(name), {}
    if variant.is_distilled:
        others = {"teacher": _read(variant.teacher, project), "no_kd": _read(variant.baseline, project)}
    report = memorization_report(own, **others)
    write_parquet(as_roles(own.records), project.memorization_table(name))
    write_parquet(as_roles(own.facts), project.facts(name))
    write_parquet(own.canaries, project.canary_scores(name))
    write_json({"tokens": params.memorization.tokens, **report}, project.memorization(name), digits=6)


def _read(name: Variant, project: Project) -> Memorization:
    """The tables that the stage wrote for another model."""
    records, facts = (as_sides(read_parquet(path)) for path in (project.memorization_table(name), project.facts(name)))
    return Memorization(records, facts, read_parquet(project.canary_scores(name)))
