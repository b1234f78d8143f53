"""The memorization stage: what one model gives back of members, non-members, their facts, and the canaries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kdleak.auditing.membership import to_json
from kdleak.core.distributed import is_main
from kdleak.core.files import read_parquet, replacing_file, write_parquet
from kdleak.core.progress import counting, progress
from kdleak.core.variants import Variant
from kdleak.data.records import read_role
from kdleak.inference.decoding import AS_PUBLISHED, PLAIN
from kdleak.inference.greedy import ENDED, continuations_under, known_starts
from kdleak.memorization.exposure import log_perplexity
from kdleak.memorization.extraction import fact_extraction, fact_spans, prefix_log_probability
from kdleak.memorization.report import EXACT, Memorization, memorization_report
from kdleak.memorization.verbatim import (
    edit_similarity,
    exact_match,
    first_choices,
    longest_correct_prefix,
    reproduced,
    rouge_l,
    token_accuracy,
)
from kdleak.models.checkpoints import load_model
from kdleak.pipeline.passes import Scorer

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from transformers import PreTrainedTokenizerBase

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project
    from kdleak.data.encoding import EncodedRecord
    from kdleak.inference.token_statistics import TokenStatistics


def measure_memorization(name: str | Variant, params: Params, project: Project) -> None:
    """Write memorization.json, memorization.parquet, facts.parquet and canaries.parquet of a model.

    A student of a teacher is compared with it and with the No-KD student, whose tables must be there.
    """
    folder = project.model(name)
    scorer = Scorer(params, project)
    encoder = scorer.encoder(folder)
    tokenizer = encoder.tokenizer
    frame, secrets = read_role(project.records, "private", "heldout"), read_parquet(project.canaries)
    records, canaries = encoder.encode_frame(frame), encoder.encode_frame(secrets)
    statistics, of_canaries = (scorer.statistics(folder, each) for each in (records, canaries))
    plain, published = _continuations(folder, records, statistics, tokenizer.eos_token_id, params)
    if not is_main():
        return
    right = first_choices(statistics, records)
    own = Memorization(
        record_table(frame, records, statistics, right, plain, published, tokenizer, params.memorization.shortest),
        fact_table(frame, records, statistics, right, tokenizer),
        secrets[["record_id", "repetitions"]].assign(log_perplexity=log_perplexity(of_canaries)),
    )
    variant = Variant.of(name)
    report = memorization_report(
        own,
        teacher=_read(variant.teacher, project) if variant.is_distilled else None,
        no_kd=_read(variant.baseline, project) if variant.is_distilled else None,
    )
    write_parquet(own.records, project.memorization_table(name))
    write_parquet(own.facts, project.facts(name))
    write_parquet(own.canaries, project.canary_scores(name))
    text = to_json({"tokens": params.memorization.tokens, **report})
    with replacing_file(project.memorization(name)) as fresh:
        fresh.write_text(text, encoding="utf-8")


def record_table(
    frame: pd.DataFrame,
    records: Sequence[EncodedRecord],
    statistics: TokenStatistics,
    right: np.ndarray,
    plain: np.ndarray,
    published: np.ndarray,
    tokenizer: PreTrainedTokenizerBase,
    shortest: int,
) -> pd.DataFrame:
    """The figures of each record: no text, no token. `plain`, `published`: continuations (n, k) under either rule."""
    k = plain.shape[1]
    prefix, lengths = longest_correct_prefix(right, statistics.offsets), statistics.lengths
    said = [tokenizer.decode([token for token in row if token != ENDED]) for row in plain.tolist()]
    texts = [tokenizer.decode(r.response[: min(k, r.n_scored)]) for r in records]
    return frame[["record_id", "role", "task", "group_id"]].assign(
        length=lengths,
        token_accuracy=token_accuracy(plain, records),
        token_accuracy_as_published=token_accuracy(published, records, as_published=True),
        correct_prefix=prefix,
        reproduced=reproduced(prefix, lengths, k, shortest),
        **{f"exact_{n}": exact_match(prefix, lengths, n) for n in EXACT},
        rouge_l=rouge_l(said, texts),
        edit_similarity=edit_similarity(plain, records),
        log_p=prefix_log_probability(statistics, k),
    )


def fact_table(
    frame: pd.DataFrame,
    records: Sequence[EncodedRecord],
    statistics: TokenStatistics,
    right: np.ndarray,
    tokenizer: PreTrainedTokenizerBase,
) -> pd.DataFrame:
    """Each private fact of the records, and whether the model gives it back after what precedes it: no text."""
    import pandas as pd

    spans = fact_spans(frame, records, tokenizer)
    owners = frame.iloc[[span.record for span in spans]]
    extracted, log_p = fact_extraction(spans, statistics, right)
    table = pd.DataFrame(
        {
            "record_id": owners["record_id"].to_numpy(),
            "role": owners["role"].to_numpy(),
            "task": owners["task"].to_numpy(),
            "kind": np.array([span.kind for span in spans], dtype=object),
            "in_prompt": np.array([span.in_prompt for span in spans], dtype=bool),
            "extracted": extracted,
            "log_p": log_p,
        }
    )
    return table.assign(fact=table.groupby("record_id").cumcount().to_numpy(np.int64))


def _continuations(
    folder: Path, records: Sequence[EncodedRecord], statistics: TokenStatistics, eos_id: int, params: Params
) -> np.ndarray:
    """(2, n, k) greedy continuations of all prompts: as the model would have it, and as the published script did."""
    with progress(f"continuing prompts with {folder.name}") as show:
        return continuations_under(
            [PLAIN, AS_PUBLISHED],
            load_model(folder),
            records,
            eos_id,
            params.memorization.tokens,
            known=known_starts(statistics, records),
            max_tokens=params.compute.batch_tokens,
            progress=counting(show, 2 * len(records)),
        )


def _read(name: Variant, project: Project) -> Memorization:
    """The tables that the stage wrote for another model."""
    tables = (project.memorization_table(name), project.facts(name), project.canary_scores(name))
    return Memorization(*(read_parquet(path) for path in tables))
