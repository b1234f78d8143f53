"""What one model repeats, record by record and fact by fact: the tables that `kdleak.memorization.report` reads.

Ids and numbers only: no text, no token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kdleak.data.encoding import Encoded, EncodedRecord, Encoder, decoded
from kdleak.inference.greedy import ENDED
from kdleak.inference.token_statistics import TokenStatistics
from kdleak.memorization.extraction import fact_extraction, fact_spans, prefix_log_probability
from kdleak.memorization.report import EXACT, KEYS
from kdleak.memorization.verbatim import (
    edit_similarity,
    exact_match,
    longest_correct_prefix,
    reproduced,
    rouge_l,
    token_accuracy,
)

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

#: A text alone is continued from so many of its first tokens, or from its first half (Carlini et al. 2023).
TEXT_PREFIX = 50


@dataclass(frozen=True)
class Continuations:
    """Greedy continuations (n, k) of the prompts of `records`, ENDED where decoding had ended: as the model decodes
    (`plain`) and as the published script did (None: not made). statistics: of the responses, teacher-forced."""

    records: Sequence[EncodedRecord]
    statistics: TokenStatistics
    plain: np.ndarray
    published: np.ndarray | None = None

    def texts(self, tokenizer: PreTrainedTokenizerBase) -> tuple[list[str], list[str]]:
        """(n,) the plain continuations as text, and (n,) as many first tokens of the records' own responses."""
        k, n = self.plain.shape[1], len(self.records)
        made = [[token for token in row if token != ENDED] for row in self.plain.tolist()]
        texts = decoded(tokenizer, [*made, *(r.response[: min(k, r.n_scored)] for r in self.records)])
        return texts[:n], texts[n:]


def record_table(
    frame: pd.DataFrame, continued: Continuations, tokenizer: PreTrainedTokenizerBase, shortest: int
) -> pd.DataFrame:
    """A row a record of `frame`; shortest: tokens of a response that counts as reproduced."""
    records, statistics, k = continued.records, continued.statistics, continued.plain.shape[1]
    prefix = longest_correct_prefix(~statistics.missed, statistics.offsets)
    texts, references = continued.texts(tokenizer)
    table = frame[list(KEYS)].assign(
        length=statistics.lengths,
        token_accuracy=token_accuracy(continued.plain, records),
        correct_prefix=prefix,
        reproduced=reproduced(prefix, statistics.lengths, k, shortest),
        **{f"exact_{n}": exact_match(prefix, statistics.lengths, n) for n in EXACT},
        rouge_l=rouge_l(texts, references),
        edit_similarity=edit_similarity(continued.plain, records),
        log_p=prefix_log_probability(statistics, k),
    )
    if continued.published is not None:
        table["token_accuracy_as_published"] = token_accuracy(continued.published, records, as_published=True)
    return table


def fact_table(frame: pd.DataFrame, encoded: Encoded, encoder: Encoder, statistics: TokenStatistics) -> pd.DataFrame:
    """A row a private fact of the records (column `facts` of `frame`): whether greedy decoding gives it back after what
    precedes it, and its log-probability. statistics: of `encoded.records`."""
    import pandas as pd

    spans = fact_spans(frame, encoded, encoder)
    owners = frame.iloc[[span.record for span in spans]]
    extracted, log_p = fact_extraction(spans, statistics, ~statistics.missed)
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


def split_texts(records: Sequence[EncodedRecord]) -> list[EncodedRecord]:
    """Texts without a prompt as a prompt, their first tokens, and the rest."""
    moved = []
    for r in records:
        n = min(TEXT_PREFIX, r.n_scored // 2)
        moved.append(EncodedRecord(r.record_id, r.prompt + r.response[:n], r.response[n:], r.n_scored - n))
    return moved


def continued_texts(
    records: Sequence[EncodedRecord], statistics: TokenStatistics
) -> tuple[list[EncodedRecord], TokenStatistics]:
    """Texts without a prompt as a prompt, their first tokens, and the rest; with the statistics of the rest, which are
    those of the same pass: a token's statistics depend on what stands before it alone."""
    moved, keep = split_texts(records), np.ones(int(statistics.offsets[-1]), bool)
    for record, rest, start in zip(records, moved, statistics.offsets[:-1], strict=True):
        keep[start : start + record.n_scored - rest.n_scored] = False
    offsets = np.concatenate([[0], np.cumsum([r.n_scored for r in moved], dtype=np.int64)])
    columns = {name: getattr(statistics, name)[keep] for name in ("log_prob", "mean", "std", "missed")}
    return moved, TokenStatistics(statistics.record_ids, offsets, **columns)
