"""MoPe: how much a record's likelihood falls when the weights are perturbed (Li et al. 2023, arXiv 2310.14369).

score = log p_theta(x) - mean_k log p_(theta + eps_k)(x), per token, eps_k Gaussian; in expectation sigma^2 / 2 times
the trace of the loss's Hessian, larger where the model has settled on x. Higher = member. An antithetic pair takes the
mean over +eps and -eps: the gradient's part, which carries no membership and most of the variance, cancels exactly.
The passes are made in `kdleak.attacks.perturbation.passes`, which imports torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kdleak.attacks.registry import AttackInput, attack
from kdleak.stats import placements


@attack("mope", mope=True)
def mope_score(inputs: AttackInput) -> np.ndarray:
    """log p_theta(x) - mean_k log p_(theta + eps_k)(x), per token: how much noise in the weights takes away
    (Li et al. 2023, arXiv 2310.14369); computed by kdleak.attacks.perturbation.passes."""
    return inputs.mope


@dataclass(frozen=True)
class Noise:
    """How weights are perturbed.

    sigma:      standard deviation of the Gaussian noise; `relative`: in units of the root mean square of the weight
                matrices of the block at hand (corrected), else absolute (as published).
    draws:      independent draws; an `antithetic` draw costs two passes, another one.
    seed:       draw k of a parameter depends on (seed, k, the parameter's name) alone.
    """

    sigma: float
    draws: int
    relative: bool = True
    antithetic: bool = True
    seed: int = 0

    @property
    def signs(self) -> tuple[int, ...]:
        return (1, -1) if self.antithetic else (1,)


@dataclass(frozen=True)
class PerturbationScores:
    """drops: (draws, n) float64, the fall of the mean log-prob of each record in each draw; NaN without tokens."""

    drops: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """(n,) the mean over draws: higher = member."""
        return self.drops.mean(0)

    @property
    def standard_errors(self) -> np.ndarray:
        """(n,) Monte-Carlo error of `scores`; NaN for a single draw."""
        return self.drops.std(0, ddof=1) / math.sqrt(len(self.drops)) if len(self.drops) > 1 else self.drops[0] * np.nan

    def auc_error(self, is_member: np.ndarray) -> float:
        """Monte-Carlo error of the AUC, by the jackknife over draws; NaN for a single draw."""
        k = len(self.drops)
        if k < 2:
            return float("nan")
        left_out = (self.drops.sum(0) - self.drops) / (k - 1)
        defined = np.isfinite(left_out).all(0)
        areas = [placements(row[defined & is_member], row[defined & ~is_member])[0].mean() for row in left_out]
        return float(np.sqrt((k - 1) * np.var(areas)))
