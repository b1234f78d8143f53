"""DistiLLM (Ko et al. 2024): skew reverse KL, on the student's own text as far as a scheduler lets it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from kdleak.config.schema import Count, Share
from kdleak.distill.divergences import skew_reverse_kl
from kdleak.distill.matching import ON_POLICY_DEFECTS, matching_objective
from kdleak.distill.registry import Method, Run, Text, method
from kdleak.distill.rollouts import Origin, ReplayBuffer, RolloutBatches
from kdleak.training.batch_sources import FixedBatches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kdleak.distill.context import Context


@method("distillm", source="Ko et al. 2024")
class DistiLLM(Method):
    """alpha: of the skew. lm_weight: of the cross-entropy on kd.lm_corpus (0: none). replay_capacity: texts of the
    replay buffer. threshold_step, tolerance: see `AdaptiveShare`. validation_share: of public, kept for its loss."""

    loss = "srkl"
    alpha: Share = 0.1
    lm_weight: Annotated[float, Field(ge=0)] = 1.0
    replay_capacity: Count = 1000
    threshold_step: Share = 0.1
    tolerance: Annotated[float, Field(ge=0)] = 0.1
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @property
    def text(self) -> Text:
        return Text.ADAPTIVE

    def build(self, context: Context) -> Run:
        records, validation = context.split_references(self.validation_share)
        corpus = context.corpus() if self.lm_weight else []
        validation_loss = partial(context.validation_loss, records=validation)
        batches = RolloutBatches(
            FixedBatches(records, self.batch_size, context.seed),
            AdaptiveShare(validation_loss, self.threshold_step, self.tolerance),
            context.rollouts(),
            self.epochs,
            ReplayBuffer(self.replay_capacity),
            drop_first_token=4 in self.defects,
        )
        divergence = partial(skew_reverse_kl, alpha=self.alpha)
        objective = matching_objective(context.signal(records), divergence, self.lm_weight)
        return Run(objective, context.with_corpus(batches, corpus, self.batch_size), records, corpus)

    def as_published(self) -> DistiLLM:
        return self.departing(ON_POLICY_DEFECTS)


class AdaptiveShare:
    """DistiLLM's scheduler (Ko et al. 2024, section 3.3).

    The threshold starts at 0 and rises by `increment` after an epoch whose validation loss lies more than `tolerance`
    above the best since it last rose. r < threshold · (1 − progress) takes fresh rollouts, r < threshold replayed ones.
    """

    def __init__(
        self, validation_loss: Callable[[PreTrainedModel], float], increment: float = 0.1, tolerance: float = 0.1
    ):
        self.validation_loss, self.increment, self.tolerance = validation_loss, increment, tolerance
        self.threshold = 0.0
        self.best = float("inf")

    def origin(self, r: float, progress: float) -> Origin:
        if r < self.threshold * (1 - progress):
            return Origin.FRESH
        return Origin.REPLAYED if r < self.threshold else Origin.FIXED

    def begin(self, model: PreTrainedModel) -> None:
        self.best = self.validation_loss(model)

    def end_epoch(self, model: PreTrainedModel) -> dict[str, float]:
        loss = self.validation_loss(model)
        if loss > self.best + self.tolerance:
            self.threshold = min(self.threshold + self.increment, 1.0)
            self.best = loss
        self.best = min(self.best, loss)
        return {"validation_loss": loss, "threshold": self.threshold}

    def state(self) -> dict[str, Any]:
        return {"threshold": self.threshold, "best": self.best}

    def restore(self, state: dict[str, Any]) -> None:
        self.threshold, self.best = state["threshold"], state["best"]
