"""Attacks as published code runs them, to stand beside the definitions they deviate from.

Three are the study's (ziqi-zhang/LLM_Distillation_Privacy, evaluate_mi_main.py; the sign is turned so that higher means
member). Under their Min-K% a response of under five tokens has no score: it averages over floor(.2 n) = 0 tokens.
"""

from __future__ import annotations

import numpy as np

from kdleak.attacks.likelihood import MIN_K, MIN_STD, mean_log_prob, zlib_bytes
from kdleak.attacks.reference import token_shift
from kdleak.attacks.registry import AttackInput, attack
from kdleak.inference import ragged


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


@attack("ez_published", references=("pretrained",))
def ez_published(inputs: AttackInput) -> np.ndarray:
    """EZ-MIA as the authors' code runs it (JetBrains-Research/ez-mia, mia/ez_score.py): P / (N + 1e-12) over the
    mispredicted tokens, the first token left out; 0, the weakest sign, with fewer than two mispredicted tokens or with
    N = 0, where the paper (apps. E.5, E.6) and `ez` see the strongest."""
    offsets = inputs.target.offsets
    delta = token_shift(inputs.target, inputs.references["pretrained"])
    counted = inputs.target.missed.copy()
    counted[offsets[:-1][inputs.target.lengths > 0]] = False
    up, down = (ragged.total(np.maximum(sign * delta, 0.0) * counted, offsets) for sign in (1.0, -1.0))
    nothing = (ragged.total(counted, offsets) < 2) | (down == 0.0)
    return np.where(np.isnan(down), np.nan, np.where(nothing, 0.0, up / (down + 1e-12)))


def _five_or_more(inputs: AttackInput, values: np.ndarray) -> np.ndarray:
    scores = ragged.lowest_mean(values, inputs.target.offsets, MIN_K)
    return np.where(inputs.target.lengths >= 5, scores, np.nan)
