"""MoPe as an attack; its forward passes, which import torch, are `kdleak.attacks.perturbation`."""

from __future__ import annotations

import numpy as np

from kdleak.attacks.registry import AttackInput, attack


@attack("mope", mope=True)
def mope(inputs: AttackInput) -> np.ndarray:
    """log p_theta(x) - mean_k log p_(theta + eps_k)(x), per token: how much noise in the weights takes away
    (Li et al. 2023, arXiv 2310.14369); computed by kdleak.attacks.perturbation."""
    return inputs.mope
