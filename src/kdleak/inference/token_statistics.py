"""What a membership attack needs from a model, gathered in one forward pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TokenStatistics:
    """Per-token statistics of `n` records under one model, ragged: record i owns [offsets[i], offsets[i + 1]).

    Only response tokens that are text are covered (no prompt, no pad, no EOS).

    record_ids: (n,) str.
    offsets:    (n + 1,) int64.
    log_prob:   (total,) float32, log p(x_t | x_<t), nats.
    mean:       (total,) float32, E_{v ~ p}[log p(v)], i.e. minus the entropy, nats.
    std:        (total,) float32, standard deviation of log p(v) under v ~ p.
    missed:     (total,) bool, whether greedy decoding would take another token.
    argmax:     (total,) int32, the token that it would take; None where nobody asked: they are token ids, and where
                the model is right they are those of a private text.
    """

    record_ids: np.ndarray
    offsets: np.ndarray
    log_prob: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    missed: np.ndarray
    argmax: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.record_ids)

    @property
    def lengths(self) -> np.ndarray:
        """(n,) number of scored tokens of each record."""
        return np.diff(self.offsets)
