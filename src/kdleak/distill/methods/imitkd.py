"""ImitKD (Lin et al. 2020): forward KL on the student's own text, drawn from a replay buffer of it."""

from __future__ import annotations

from kdleak.config.schema import Count, Share
from kdleak.distill.matching import ON_POLICY_DEFECTS, DivergenceMethod
from kdleak.distill.registry import method


@method("imitkd", source="Lin et al. 2020")
class ImitKD(DivergenceMethod):
    """student_fraction: probability that a batch is written by the student. replay_capacity: texts of the buffer
    that its batches are drawn from."""

    loss = "fkl"
    student_fraction: Share = 1.0
    replay_capacity: Count = 1000

    def as_published(self) -> ImitKD:
        defect = {17: "ImitKD has a language-modelling loss on a general corpus, which its paper does not"}
        return self.departing(ON_POLICY_DEFECTS | defect, lm_weight=1.0)
