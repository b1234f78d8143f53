"""Divergences alone, on the references: KD (forward KL), and the objectives of other methods without their data."""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar

from pydantic import Field

from kdleak.config.schema import Share
from kdleak.distill.divergences import Divergence, jensen_shannon, skew_forward_kl, skew_reverse_kl
from kdleak.distill.matching import DivergenceMethod
from kdleak.distill.registry import method


@method("kd", source="Hinton et al. 2015")
class KD(DivergenceMethod):
    """Forward KL."""

    loss = "fkl"


@method("rkl", source="reverse KL alone")
class ReverseKL(DivergenceMethod):
    """Reverse KL."""

    loss = "rkl"


class JensenShannon(DivergenceMethod):
    """Generalised Jensen-Shannon divergence, beta·KL(p ‖ m) + (1 − beta)·KL(q ‖ m), m = beta·p + (1 − beta)·q.

    beta is that of GKD (Agarwal et al. 2024, eq. 1) and of TRL; the study's code has .1 (its λ is 1 − beta).
    """

    loss = "jsd"
    renamed: ClassVar = {"weight": "'beta', as in TRL, which is 1 - weight"}
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.1

    def divergence(self) -> Divergence:
        return partial(jensen_shannon, weight=1 - self.beta)


@method("jsd", source="generalised Jensen-Shannon alone")
class JSD(JensenShannon):
    """Generalised Jensen-Shannon divergence."""


@method("sfkl", source="skew forward KL alone")
class SkewForwardKL(DivergenceMethod):
    """Skew forward KL. alpha: the teacher's share in the mixture."""

    loss = "sfkl"
    alpha: Share = 0.1

    def divergence(self) -> Divergence:
        return partial(skew_forward_kl, alpha=self.alpha)


@method("srkl", source="skew reverse KL alone")
class SkewReverseKL(DivergenceMethod):
    """Skew reverse KL. alpha: the student's share in the mixture."""

    loss = "srkl"
    alpha: Share = 0.1

    def divergence(self) -> Divergence:
        return partial(skew_reverse_kl, alpha=self.alpha)


@method("tvd", source="total variation alone (Wen et al. 2023)")
class TotalVariation(DivergenceMethod):
    """Total variation."""

    loss = "tvd"


@method("akl", source="adaptive KL alone (Wu et al. 2025)")
class AdaptiveKL(DivergenceMethod):
    """Forward and reverse KL, weighted at each position."""

    loss = "akl"
