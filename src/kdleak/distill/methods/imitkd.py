"""ImitKD (Lin et al. 2020): forward KL on the student's own text, drawn from a replay buffer of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from kdleak.config.schema import Count, Share
from kdleak.distill.matching import DivergenceMethod, matching_objective
from kdleak.distill.registry import Run, method
from kdleak.distill.rollouts import ConstantShare, ReplayBuffer, RolloutBatches
from kdleak.training.batch_sources import FixedBatches

if TYPE_CHECKING:
    from kdleak.distill.context import Context


@method("imitkd", source="Lin et al. 2020")
class ImitKD(DivergenceMethod):
    """student_fraction: probability that a batch is written by the student. replay_capacity: texts of the buffer
    that its batches are drawn from. lm_weight: of the cross-entropy on kd.lm_corpus (0: none)."""

    loss = "fkl"
    student_fraction: Share = 1.0
    replay_capacity: Count = 1000
    lm_weight: Annotated[float, Field(ge=0)] = 1.0

    def build(self, context: Context) -> Run:
        records, corpus = context.references(), context.corpus() if self.lm_weight else []
        batches = RolloutBatches(
            FixedBatches(records, self.batch_size, context.seed),
            ConstantShare(self.student_fraction, through_buffer=True),
            context.rollouts(),
            self.epochs,
            ReplayBuffer(self.replay_capacity),
            drop_first_token=4 in self.defects,
        )
        objective = matching_objective(context.signal(records), self.divergence(), self.lm_weight)
        return Run(objective, context.with_corpus(batches, corpus, self.batch_size), records, corpus)
