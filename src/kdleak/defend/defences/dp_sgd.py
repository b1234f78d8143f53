"""DP-SGD: the teacher is differentially private, and so is whatever is made of it."""

from __future__ import annotations

from kdleak.defend.dp import PrivateTraining
from kdleak.defend.registry import Acts, Fitting, defence


@defence("dp_sgd", acts_on=Acts.TEACHER, source="Abadi et al. 2016 (arXiv 1607.00133)")
class PrivateTeacher(PrivateTraining):
    """The teacher's fine-tuning on private and on the canaries by DP-SGD; its students are private by post-processing.

    ε covers the weights. The loss curve in training.json, and a sigma, rate or number of epochs chosen by results on
    private records, are not covered.
    """

    protects = "each private record, with a proof: no attack on teacher or student can do better than ε and δ allow"
    does_not_protect = "repeated records (a group's ε is larger), what many records state, choices made on private"

    def teacher(self, fitting: Fitting) -> Fitting:
        return self.private(fitting, "private", "facts that many records state")
