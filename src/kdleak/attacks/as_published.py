"""Three attacks as the study's published code ran them, to stand beside the definitions they deviate from.

(ziqi-zhang/LLM_Distillation_Privacy, evaluate_mi_main.py; the sign is turned so that higher means member.) A response
of under five tokens has no score here: the code averages over floor(.2 n) = 0 tokens.
"""

from __future__ import annotations

import numpy as np

from kdleak.attacks.likelihood import MIN_K, MIN_STD, mean_log_prob, zlib_bytes
from kdleak.attacks.registry import AttackInput, attack
from kdleak.inference.ragged import lowest_mean


@attack("zlib_published", argmax_texts=True)
def zlib_published(inputs: AttackInput) -> np.ndarray:
    """As published: mean log p over the compressed bytes of the text that the model's *argmax* tokens spell, where the
    definition compresses the text under test."""
    return mean_log_prob(inputs.target) / zlib_bytes(inputs.argmax_texts)


@attack("mink_published")
def mink_published(inputs: AttackInput) -> np.ndarray:
    """As published: mean of the lowest 20 % of the tokens' *probabilities*, where Min-K% averages log-probabilities."""
    return _five_or_more(inputs, np.exp(inputs.target.log_prob.astype(np.float64)))


@attack("minkpp_published")
def minkpp_published(inputs: AttackInput) -> np.ndarray:
    """As published: mean of the lowest 20 % of (*p* - mu) / sigma, a probability less a mean log-probability, where
    Min-K%++ standardises log p."""
    statistics = inputs.target
    gap = np.exp(statistics.log_prob.astype(np.float64)) - statistics.mean.astype(np.float64)
    return _five_or_more(inputs, gap / np.maximum(statistics.std.astype(np.float64), MIN_STD))


def _five_or_more(inputs: AttackInput, values: np.ndarray) -> np.ndarray:
    scores = lowest_mean(values, inputs.target.offsets, MIN_K)
    return np.where(inputs.target.lengths >= 5, scores, np.nan)
