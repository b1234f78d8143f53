"""Verbatim memorization, record by record: how much of its response a model gives back from the prompt alone.

Pure functions of continuations (n, k) (`kdleak.inference.greedy`; ENDED from where decoding had ended), of token
statistics and of the records themselves. Reference tokens are those of the response's text, EOS not among them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdleak.data.encoding import EncodedRecord
from kdleak.inference.greedy import ENDED

#: Fills a table of references from where a reference has ended: equal to no token, nor to ENDED.
_NO_TOKEN = -2


def reference_tokens(records: Sequence[EncodedRecord], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The first k tokens of each response, (n, k) int64, and how many of them there are, (n,) int64."""
    table = np.full((len(records), k), _NO_TOKEN, dtype=np.int64)
    lengths = np.array([min(k, r.n_scored) for r in records], dtype=np.int64)
    for row, record, length in zip(table, records, lengths, strict=True):
        row[:length] = record.response[:length]
    return table, lengths


def token_accuracy(
    continuations: np.ndarray, records: Sequence[EncodedRecord], *, as_published: bool = False
) -> np.ndarray:
    """(n,) share of the first k reference tokens that the continuation has at the same place.

    A reference of fewer than k tokens is judged by those that it has. `as_published` divides by k all the same: the
    published script compared with the padding after a short reference too, which no continuation can match.
    """
    table, lengths = reference_tokens(records, continuations.shape[1])
    return (continuations == table).sum(1) / (continuations.shape[1] if as_published else lengths)


def longest_correct_prefix(right: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(n,) int64 number of leading response tokens that greedy decoding reproduces, up to the full response.

    right: (total,) bool, whether greedy decoding takes each response token, given those before; record i owns
    right[offsets[i] : offsets[i + 1]].
    """
    wrong = np.append(np.flatnonzero(~right), len(right))
    first_wrong = wrong[np.searchsorted(wrong, offsets[:-1])]
    return np.minimum(first_wrong, offsets[1:]) - offsets[:-1]


def exact_match(prefix: np.ndarray, lengths: np.ndarray, k: int) -> np.ndarray:
    """(n,) 1 where the first k response tokens are reproduced, 0 where not, NaN where the response has fewer.

    prefix: (n,) `longest_correct_prefix`. lengths: (n,) tokens of each response.
    """
    return np.where(lengths >= k, (prefix >= k).astype(float), np.nan)


def reproduced(prefix: np.ndarray, lengths: np.ndarray, k: int, shortest: int = 8) -> np.ndarray:
    """(n,) 1 where the first min(k, length) response tokens are reproduced, 0 where not, NaN where the response has
    fewer than `shortest` (an answer of a word or two is guessed more easily than remembered)."""
    return np.where(lengths >= shortest, (prefix >= np.minimum(lengths, k)).astype(float), np.nan)


def edit_similarity(continuations: np.ndarray, records: Sequence[EncodedRecord]) -> np.ndarray:
    """(n,) 1 - Levenshtein distance / length of the longer, between the continuation's tokens and the first k of the
    reference; 1: equal. All records share the k^2 steps of the dynamic programme, of which two rows are kept."""
    n, k = continuations.shape
    table, lengths = reference_tokens(records, k)
    own_lengths = (continuations != ENDED).sum(1)
    # row[:, j]: distance between the first i tokens of each continuation and the first j of its reference.
    row = np.tile(np.arange(k + 1, dtype=np.int32), (n, 1))
    distance = lengths.astype(np.int32)  # of a continuation without a token
    for i in range(1, k + 1):
        before, row = row, np.full_like(row, i)
        substituted = before[:, :-1] + (continuations[:, i - 1, None] != table)
        for j in range(1, k + 1):
            shifted = np.minimum(before[:, j], row[:, j - 1]) + 1
            row[:, j] = np.minimum(substituted[:, j - 1], shifted)
        ended = own_lengths == i
        distance[ended] = row[ended, lengths[ended]]
    return 1 - distance / np.maximum(np.maximum(own_lengths, lengths), 1)


def rouge_l(candidates: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """(n,) ROUGE-L F-measure of texts, words stemmed (Lin 2004; as the study's utility has it), in [0, 1]."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    pairs = zip(references, candidates, strict=True)
    return np.array([scorer.score(reference, candidate)["rougeL"].fmeasure for reference, candidate in pairs])
