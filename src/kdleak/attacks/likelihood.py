"""Attacks on the audited model's own token statistics, each as the paper it cites defines it.

A score is a mean over a record's scored response tokens unless the definition says otherwise; higher = member.
"""

from __future__ import annotations

import zlib as compression
from collections.abc import Sequence

import numpy as np

from kdleak.attacks.registry import AttackInput, attack
from kdleak.attacks.variants import LOWERCASE
from kdleak.inference import ragged
from kdleak.inference.token_statistics import TokenStatistics

#: Min-K%'s share of tokens, as in the study.
MIN_K = 0.2
#: Below this a distribution over the vocabulary is a point (or flat), and its z-score is taken as if it were this wide.
MIN_STD = 1e-6


@attack("loss")
def loss(inputs: AttackInput) -> np.ndarray:
    """mean_t log p(x_t | x_<t), the negated loss (Yeom et al. 2018, arXiv 1709.01604)."""
    return mean_log_prob(inputs.target)


@attack("zlib", texts=True)
def zlib(inputs: AttackInput) -> np.ndarray:
    """mean_t log p(x_t | x_<t) / |zlib(x)|, with |zlib(x)| the bytes of the compressed text itself
    (Carlini et al. 2021, arXiv 2012.07805, sec. 5.2)."""
    return mean_log_prob(inputs.target) / zlib_bytes(inputs.texts)


@attack("mink")
def mink(inputs: AttackInput) -> np.ndarray:
    """Mean log p over the 20 % of tokens with the lowest log p, at least one token
    (Shi et al. 2024, arXiv 2310.16789, eq. 1)."""
    return ragged.lowest_mean(inputs.target.log_prob, inputs.target.offsets, MIN_K)


@attack("minkpp")
def minkpp(inputs: AttackInput) -> np.ndarray:
    """Mean of the lowest 20 % of (log p(x_t) - mu_t) / sigma_t, at least one token, with mu_t and sigma_t the mean and
    the standard deviation of log p over the vocabulary under p (Zhang et al. 2025, arXiv 2404.02936, eqs. 2-3)."""
    return ragged.lowest_mean(standardised(inputs.target), inputs.target.offsets, MIN_K)


@attack("lowercase", passes=(LOWERCASE,))
def lowercase(inputs: AttackInput) -> np.ndarray:
    """log of the perplexity of the lower-cased response over the perplexity of the response itself (Carlini et al.
    2021, arXiv 2012.07805, sec. 5.2): a memorized text is tied to its casing."""
    return mean_log_prob(inputs.target) - mean_log_prob(inputs.variants[LOWERCASE.name])


def mean_log_prob(statistics: TokenStatistics) -> np.ndarray:
    """(n,) mean log-prob of the scored tokens, nats per token."""
    return ragged.mean(statistics.log_prob, statistics.offsets)


def standardised(statistics: TokenStatistics) -> np.ndarray:
    """(total,) float64 z-score of each token's log-prob under the model's own distribution."""
    gap = statistics.log_prob.astype(np.float64) - statistics.mean.astype(np.float64)
    return gap / np.maximum(statistics.std.astype(np.float64), MIN_STD)


def zlib_bytes(texts: Sequence[str]) -> np.ndarray:
    """(n,) bytes of each text compressed by zlib at its default level."""
    return np.array([len(compression.compress(text.encode("utf-8", "replace"))) for text in texts], np.float64)
