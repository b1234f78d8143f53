"""The study's attacks on token statistics, each as the paper it cites defines it.

A score is a mean over a record's scored response tokens unless the definition says otherwise; higher = member.
"""

from __future__ import annotations

import zlib as compression
from collections.abc import Sequence

import numpy as np

from kdleak.attacks.registry import AttackInput, attack
from kdleak.inference import ragged
from kdleak.inference.token_statistics import TokenStatistics

#: Min-K%'s share of tokens, as in the study.
MIN_K = 0.2
#: Below this a distribution over the vocabulary is a point (or flat), and its z-score is taken as if it were this wide.
MIN_STD = 1e-6


@attack("loss")
def loss(given: AttackInput) -> np.ndarray:
    """mean_t log p(x_t | x_<t), the negated loss (Yeom et al. 2018, arXiv 1709.01604)."""
    return mean_log_prob(given.target)


@attack("zlib", texts=True)
def zlib(given: AttackInput) -> np.ndarray:
    """mean_t log p(x_t | x_<t) / |zlib(x)|, with |zlib(x)| the bytes of the compressed text itself
    (Carlini et al. 2021, arXiv 2012.07805, sec. 5.2)."""
    return mean_log_prob(given.target) / zlib_bytes(given.texts)


@attack("mink")
def mink(given: AttackInput) -> np.ndarray:
    """Mean log p over the 20 % of tokens with the lowest log p, at least one token
    (Shi et al. 2024, arXiv 2310.16789, eq. 1)."""
    return ragged.lowest_mean(given.target.log_prob, given.target.offsets, MIN_K)


@attack("minkpp")
def minkpp(given: AttackInput) -> np.ndarray:
    """Mean of the lowest 20 % of (log p(x_t) - mu_t) / sigma_t, at least one token, with mu_t and sigma_t the mean and
    the standard deviation of log p over the vocabulary under p (Zhang et al. 2025, arXiv 2404.02936, eqs. 2-3)."""
    return ragged.lowest_mean(standardised(given.target), given.target.offsets, MIN_K)


@attack("ref_external", references=("external",))
def ref_external(given: AttackInput) -> np.ndarray:
    """Log-likelihood ratio per token of the audited model to a model of another architecture that saw neither members
    nor non-members (Carlini et al. 2021, arXiv 2012.07805, sec. 5.2)."""
    return log_likelihood_ratio(given.target, given.references["external"])


@attack("ref_pretrained", references=("pretrained",))
def ref_pretrained(given: AttackInput) -> np.ndarray:
    """Log-likelihood ratio per token of the audited model to its pretrained base: the calibration by difficulty of
    Watson et al. 2022 (arXiv 2111.08440), as the study runs it."""
    return log_likelihood_ratio(given.target, given.references["pretrained"])


def mean_log_prob(statistics: TokenStatistics) -> np.ndarray:
    """(n,) mean log-prob of the scored tokens, nats per token."""
    return ragged.mean(statistics.log_prob, statistics.offsets)


def standardised(statistics: TokenStatistics) -> np.ndarray:
    """(total,) float64 z-score of each token's log-prob under the model's own distribution."""
    gap = statistics.log_prob.astype(np.float64) - statistics.mean.astype(np.float64)
    return gap / np.maximum(statistics.std.astype(np.float64), MIN_STD)


def log_likelihood_ratio(target: TokenStatistics, reference: TokenStatistics) -> np.ndarray:
    """(n,) log p_target(text) - log p_reference(text), divided by the target's token count.

    With a shared tokenizer this is the difference of mean log-probs; with two tokenizers it still compares the
    probability of the same text, which a difference of per-token means would not.
    """
    ratio = ragged.total(target.log_prob, target.offsets) - ragged.total(reference.log_prob, reference.offsets)
    return ratio / np.maximum(target.lengths, 1)


def zlib_bytes(texts: Sequence[str]) -> np.ndarray:
    """(n,) bytes of each text compressed by zlib at its default level."""
    return np.array([len(compression.compress(text.encode("utf-8", "replace"))) for text in texts], np.float64)
