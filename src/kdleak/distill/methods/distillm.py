"""DistiLLM (Ko et al. 2024): skew reverse KL, on the student's own text as far as a scheduler lets it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from kdleak.config.schema import Count, Share
from kdleak.distill.divergences import skew_reverse_kl
from kdleak.distill.matching import ON_POLICY_DEFECTS, matching_objective
from kdleak.distill.methods.plain import SkewReverseKL
from kdleak.distill.registry import INIT_IGNORED, Method, Run, Text, method
from kdleak.distill.rollouts import Origin, ReplayBuffer, RolloutBatches
from kdleak.training.batch_sources import FixedBatches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kdleak.distill.context import Context


@method("distillm", source="Ko et al. 2024")
class DistiLLM(Method):
    """alpha: of the skew. replay_capacity: texts that the replay buffer holds before one is replayed. threshold:
    the initial one; threshold_step, tolerance, replay: see `AdaptiveShare`. The loss that the scheduler watches is
    that of the population's records, which no training has seen. published_type: what the study's script names."""

    loss = "srkl"
    renamed: ClassVar = {"validation_share": "the role population: its size is data.sizes.population"}
    alpha: Share = 0.1
    lm_weight: Annotated[float, Field(ge=0)] = 1.0
    replay_capacity: Count = 1000
    replay: Literal["decreasing", "constant", "increasing"] = "decreasing"
    threshold: Share = 0.0
    threshold_step: Share = 0.1
    tolerance: Annotated[float, Field(gt=-0.5)] = 0.1
    published_type: Literal["adaptive-srkl", "srkl-aesop"] = "adaptive-srkl"

    @property
    def text(self) -> Text:
        return Text.ADAPTIVE

    def build(self, context: Context) -> Run:
        records = context.references()
        fixed = FixedBatches(records, self.batch_size, context.seed)
        validation_loss = partial(context.validation_loss, records=context.validation())
        share = AdaptiveShare(validation_loss, self.threshold_step, self.tolerance, self.threshold, self.replay)
        buffer, steps = ReplayBuffer(self.replay_capacity), self.total_steps(fixed.steps_per_epoch)
        batches = RolloutBatches(fixed, share, context.rollouts(), steps, buffer, drop_first_token=4 in self.defects)
        objective = matching_objective(context.signal(records), partial(skew_reverse_kl, alpha=self.alpha))
        return Run(objective, batches, records)

    def as_published(self) -> Method:
        if self.published_type == "adaptive-srkl":
            return self.departing(ON_POLICY_DEFECTS)
        defect = {
            23: "DistiLLM of type srkl-aesop is skew reverse KL on the references: the code knows no such schedule"
        }
        training = self.model_dump(include={"lr", "epochs", "batch_size", "steps", "lm_weight", "alpha"})
        return SkewReverseKL(**training).departing(INIT_IGNORED | defect)


class AdaptiveShare:
    """DistiLLM's scheduler as its authors' code has it (jongwooko/distillm, finetune.py).

    The threshold starts at `initial` and rises by `increment` after an epoch whose validation loss is at least
    `tolerance` above the loss at the last rise, at first that of the start; what a loss is compared with moves at a
    rise alone. (Below 0 a tolerance asks for an improvement: the threshold rises where there was less.) r < threshold
    takes the student's text: fresh below the threshold times 1 − progress (replay "decreasing"), ½ ("constant") or
    progress ("increasing"), a replayed one above.
    """

    def __init__(
        self,
        validation_loss: Callable[[PreTrainedModel], float],
        increment: float = 0.1,
        tolerance: float = 0.1,
        initial: float = 0.0,
        replay: str = "decreasing",
    ):
        self.validation_loss, self.increment, self.tolerance = validation_loss, increment, tolerance
        self.threshold, self.replay = initial, replay
        self.loss_at_rise = float("inf")

    def fresh_below(self, progress: float) -> float:
        """Below which `r` a batch is written anew."""
        fresh = {"decreasing": 1 - progress, "constant": 0.5, "increasing": progress}[self.replay]
        return self.threshold * fresh

    def origin(self, r: float, progress: float) -> Origin:
        if r < self.fresh_below(progress):
            return Origin.FRESH
        return Origin.REPLAYED if r < self.threshold else Origin.FIXED

    def begin(self, model: PreTrainedModel) -> None:
        self.loss_at_rise = self.validation_loss(model)

    def end_epoch(self, model: PreTrainedModel) -> dict[str, float]:
        loss = self.validation_loss(model)
        if loss >= self.loss_at_rise + self.tolerance:
            self.threshold = min(self.threshold + self.increment, 1.0)
            self.loss_at_rise = loss
        return {"validation_loss": loss, "threshold": self.threshold}

    def state(self) -> dict[str, Any]:
        return {"threshold": self.threshold, "loss_at_rise": self.loss_at_rise}

    def restore(self, state: dict[str, Any]) -> None:
        self.threshold, self.loss_at_rise = state["threshold"], state["loss_at_rise"]
