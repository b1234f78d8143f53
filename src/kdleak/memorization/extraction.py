"""What can be extracted: by how many samples, and which private facts.

A sequence of probability p_z under the model is (n, p)-discoverably extractable if n samples contain it with
probability p at least: 1 - (1 - p_z)^n >= p (Hayes et al. 2024, arXiv 2410.19482). Sampling is at temperature 1 from
the whole vocabulary, so that p_z is the product of the teacher-forced probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kdleak.data.encoding import Encoded, Encoder
from kdleak.data.records import normalise
from kdleak.inference.token_statistics import TokenStatistics

if TYPE_CHECKING:
    import pandas as pd


def prefix_log_probability(statistics: TokenStatistics, k: int) -> np.ndarray:
    """(n,) float64 log-probability, nats, of the first min(k, length) response tokens given the prompt."""
    return span_sums(statistics.log_prob, statistics.offsets[:-1], np.minimum(statistics.lengths, k))


def discoverable(log_p: np.ndarray, n: float, p: float) -> np.ndarray:
    """(m,) bool: whether sequences of log-probability `log_p` (m,), nats, are (n, p)-discoverably extractable.

    n: samples, at least 1. p: in (0, 1).
    """
    with np.errstate(divide="ignore"):
        return n * np.log1p(-np.exp(np.asarray(log_p, np.float64))) <= np.log1p(-p)


@dataclass(frozen=True)
class FactSpan:
    """Where a private fact stands in a record: response tokens [start, stop).

    record: index of the record. in_prompt: whether the prompt states the value too, so that it can be copied.
    """

    record: int
    kind: str
    start: int
    stop: int
    in_prompt: bool


def fact_spans(frame: pd.DataFrame, encoded: Encoded, encoder: Encoder) -> list[FactSpan]:
    """The first mention of each fact of the records table `frame` (column `facts`), which `encoder` encoded.

    A span holds every token that has a character of the value, its neighbours' characters included. Facts that
    truncation has cut off, or that the response does not state verbatim, are left out.
    """
    spans = []
    fields = zip(frame["instruction"], frame["context"], frame["facts"], frame["response"], strict=True)
    for i, (instruction, context, facts, response) in enumerate(fields):
        prompt = normalise(encoder.prompt(instruction, context)) if len(facts) else ""
        begins, ends = encoded.spans[i].T
        for fact in facts:
            place = response.find(fact["value"])
            end = place + len(fact["value"])
            tokens = np.flatnonzero((begins < end) & (ends > place)).tolist()
            if place >= 0 and tokens and tokens[-1] < encoded.records[i].n_scored:
                spans.append(FactSpan(i, fact["kind"], tokens[0], tokens[-1] + 1, normalise(fact["value"]) in prompt))
    return spans


def fact_extraction(
    spans: Sequence[FactSpan], statistics: TokenStatistics, right: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each span, given the prompt and the response before it: whether greedy decoding extracts it (s,) bool,
    and its log-probability (s,) float64, nats. right: (total,) whether greedy decoding takes each token."""
    starts = np.array([statistics.offsets[s.record] + s.start for s in spans], dtype=np.int64)
    lengths = np.array([s.stop - s.start for s in spans], dtype=np.int64)
    return span_sums(right, starts, lengths) == lengths, span_sums(statistics.log_prob, starts, lengths)


def span_sums(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(s,) float64: sums of values[start : start + length]; each within its own span, so free of its neighbours."""
    owner = np.repeat(np.arange(len(starts)), lengths)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    picked = np.asarray(values, np.float64)[np.asarray(starts)[owner] + within]
    return np.bincount(owner, weights=picked, minlength=len(starts))
