"""Attacks that compare the audited model with a reference model by the likelihood of the whole response."""

from __future__ import annotations

import numpy as np

from kdleak.attacks.registry import AttackInput, attack
from kdleak.core.errors import KdleakError
from kdleak.inference import ragged
from kdleak.inference.token_statistics import TokenStatistics


@attack("ref_external", references=("external",))
def ref_external(inputs: AttackInput) -> np.ndarray:
    """Log-likelihood ratio per token of the audited model to a model of another architecture that saw neither members
    nor non-members (Carlini et al. 2021, arXiv 2012.07805, sec. 5.2)."""
    return log_likelihood_ratio(inputs.target, inputs.references["external"])


@attack("ref_pretrained", references=("pretrained",))
def ref_pretrained(inputs: AttackInput) -> np.ndarray:
    """Log-likelihood ratio per token of the audited model to its pretrained base: the calibration by difficulty of
    Watson et al. 2022 (arXiv 2111.08440), as the study runs it."""
    return log_likelihood_ratio(inputs.target, inputs.references["pretrained"])


@attack("ref_no_kd", references=("no_kd",))
def ref_no_kd(inputs: AttackInput) -> np.ndarray:
    """Log-likelihood ratio per token of the audited student to the one that was trained on the same data without a
    teacher: what is left is what the teacher added. Whoever has the public data can train that student (this
    project)."""
    return log_likelihood_ratio(inputs.target, inputs.references["no_kd"])


def log_likelihood_ratio(target: TokenStatistics, reference: TokenStatistics) -> np.ndarray:
    """(n,) log p_target(text) - log p_reference(text), divided by the target's token count.

    With a shared tokenizer this is the difference of mean log-probs; with two tokenizers it still compares the
    probability of the same text, which a difference of per-token means would not.
    """
    ratio = ragged.total(target.log_prob, target.offsets) - ragged.total(reference.log_prob, reference.offsets)
    return ratio / np.maximum(target.lengths, 1)


def token_shift(target: TokenStatistics, reference: TokenStatistics) -> np.ndarray:
    """(total,) float64 log p_target - log p_reference, token by token.

    Raises KdleakError where the two models do not share a tokenizer.
    """
    if not np.array_equal(target.offsets, reference.offsets):
        raise KdleakError("a token-by-token comparison needs a reference with the target's tokenizer")
    return target.log_prob.astype(np.float64) - reference.log_prob.astype(np.float64)
