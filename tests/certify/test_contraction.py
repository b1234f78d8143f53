"""The theorems of docs/theory.md on random channels, and what they say of each release.

A channel is a matrix (inputs, outputs) of probabilities, a row an input.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from kdleak.certify.contraction import contraction, sampled_blend
from kdleak.defend.defences.blend import Blend
from kdleak.defend.defences.temperature import Flattened

RNG = np.random.default_rng(0)


def hockey_stick(p: np.ndarray, q: np.ndarray, epsilon: float) -> float:
    return float(np.maximum(0.0, p - math.exp(epsilon) * q).sum())


def coefficient(channel: np.ndarray, epsilon: float) -> float:
    return max(hockey_stick(first, second, epsilon) for first in channel for second in channel)


def channels(number: int):
    """Random pairs of inputs' distributions and channels, some of them sparse."""
    for _ in range(number):
        inputs, outputs = RNG.integers(2, 7, 2)
        p, q = RNG.dirichlet(np.full(inputs, 0.5), 2)
        yield p, q, RNG.dirichlet(np.full(outputs, RNG.choice([0.2, 1.0, 5.0])), inputs)


def test_post_processing_and_contraction_of_the_hockey_stick_divergence():
    """Theorems 1 and 2: E_ε(PK, QK) <= η_ε(K) E_ε(P, Q) <= η_0(K) E_ε(P, Q) <= E_ε(P, Q)."""
    for p, q, channel in channels(400):
        for epsilon in (0.0, 0.3, 1.0, 2.5):
            before, after = hockey_stick(p, q, epsilon), hockey_stick(p @ channel, q @ channel, epsilon)
            assert after <= coefficient(channel, epsilon) * before + 1e-12
            assert coefficient(channel, epsilon) <= coefficient(channel, 0.0) + 1e-12 <= 1 + 2e-12


def test_pure_privacy_through_a_local_channel():
    """Theorem 3: log((e^(ε+l) + 1) / (e^ε + e^l)), reached by randomised response after randomised response."""
    for p, q, channel in channels(400):
        if min(p.min(), q.min(), channel.min()) < 1e-9:
            continue
        e = float(np.abs(np.log(p / q)).max())
        local = float((np.log(channel).max(0) - np.log(channel).min(0)).max())
        bound = np.logaddexp(e + local, 0) - np.logaddexp(e, local)
        assert np.abs(np.log((p @ channel) / (q @ channel))).max() <= bound + 1e-9 <= min(e, local) + 2e-9
    first, second = (np.array([[x, 1 - x], [1 - x, x]]) for x in (0.8, 0.7))
    both = np.log(first @ second)
    e, local = np.log(0.8 / 0.2), np.log(0.7 / 0.3)
    assert (both.max(0) - both.min(0)).max() == pytest.approx(np.logaddexp(e + local, 0) - np.logaddexp(e, local))


def test_a_blend_that_is_sampled_contracts_by_its_coefficient_and_no_teachers_are_further_apart():
    """Theorem 5, on all sequences of two tokens over three words."""
    base, share = RNG.dirichlet(np.ones(3)), 0.4
    for sharp in (0.02, 1.0):
        teachers = RNG.dirichlet(np.full(3, sharp), 20)
        token = share * base + (1 - share) * teachers
        pairs = np.einsum("ti,tj->tij", token, token).reshape(len(token), -1)
        assert coefficient(pairs, 0.0) <= sampled_blend(share, 2) + 1e-12
    certain = share * base + (1 - share) * np.eye(3)  # teachers that are sure of different tokens
    assert coefficient(certain, 0.0) == pytest.approx(sampled_blend(share, 1))


def test_temperature_and_blend_can_be_undone():
    """Theorem 4: the teacher's distribution comes out of what is released."""
    logits, base = torch.randn(7, 50, dtype=torch.float64), torch.randn(7, 50, dtype=torch.float64)
    flat = Flattened(3.0)(logits).log_softmax(-1)
    assert torch.allclose((3.0 * flat).log_softmax(-1), logits.log_softmax(-1))
    blended = Blend(0.5, None, "", ())(logits, base).exp()
    undone = (blended - 0.5 * base.softmax(-1)) / 0.5
    assert torch.allclose(undone, logits.softmax(-1).to(undone.dtype), atol=1e-6)


def test_of_each_release_no_more_is_claimed_than_is_proven():
    assert contraction("blend", {"base_share": 0.5, "kept_shifts": None}, 3) == {
        "factor": 0.875,
        "why": "3 tokens, each the public base's with probability 0.5, whoever the teacher was",
    }
    assert contraction("blend", {"base_share": 0.5, "kept_shifts": None}, None)["factor"] == 1
    assert contraction("blend", {"base_share": 1.0, "kept_shifts": None}, None)["factor"] == 0
    assert "certainty" in contraction("blend", {"base_share": 0.5, "kept_shifts": 2}, 3)["why"]
    for name in ("top_k", "label_only", "temperature", "none", "dp_sgd"):
        assert contraction(name, {}, 3)["factor"] == 1
