"""MiniLLM (Gu et al. 2024): reverse KL of whole responses, by policy gradient on rollouts of student and teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from kdleak.config.schema import Count, Rate, Share
from kdleak.core.errors import KdleakError
from kdleak.distill.minillm import corpus_loss, policy_objective
from kdleak.distill.minillm_rounds import PolicyBatches
from kdleak.distill.registry import INIT_IGNORED, Method, Run, Text, method
from kdleak.training.finetune import cross_entropy

if TYPE_CHECKING:
    from kdleak.distill.context import Context


#: What else the published code does otherwise than the paper, beside `INIT_IGNORED`.
DEFECTS = {
    2: "MiniLLM rolls out on private prompts too",
    18: "MiniLLM's return contains the token's own reward, which the single-step term holds already",
    19: "MiniLLM's single-step term carries no importance weight",
    20: "MiniLLM's returns are whitened over the padded mini-batch, padding included",
    21: "MiniLLM's corpus term is half cross-entropy, half forward KL to the teacher",
    22: "MiniLLM's weight decay is 1e-6, and it ends after 5,000 steps",
}


@method("minillm", source="Gu et al. 2024")
class MiniLLM(Method):
    """Options, at the paper's values. Neither rollouts nor updates have dropout, so that a ratio starts at 1.

    teacher_share: of the teacher in the sampler, p̃ = (1 − share)·q + share·p.
    reward_scale:  rewards are (log p − log q) / scale, clipped at ± `reward_clip`.
    discount:      γ of the return.
    ppo_clip:      ε: the importance ratio counts within [1 − ε, 1 + ε].
    rollouts:      prompts that are rolled out at once, then trained on for `inner_epochs` epochs: no text is ever
                   older than rollouts · inner_epochs / batch_size steps.
    """

    loss = "policy"
    lr: Rate = 0.0003
    lm_weight: Annotated[float, Field(ge=0)] = 1.0
    teacher_share: Annotated[float, Field(ge=0, lt=1)] = 0.2
    reward_scale: Annotated[float, Field(gt=0)] = 0.5
    reward_clip: Annotated[float, Field(gt=0)] = 100.0
    discount: Share = 0.95
    ppo_clip: Rate = 0.2
    rollouts: Count = 256
    inner_epochs: Count = 4

    @property
    def text(self) -> Text:
        return Text.POLICY

    @property
    def optimizer(self) -> Mapping[str, Any]:
        own = {"betas": (0.9, 0.95), "schedule": "constant", "warmup": 0.02, "dropout": False}
        return own | ({"weight_decay": 1e-6} if 22 in self.defects else {})

    def build(self, context: Context) -> Run:
        if context.params.generation.temperature != 1:
            raise KdleakError(
                "generation.temperature: 'minillm' takes 1 alone, the temperature that its importance weights and "
                "rewards are defined at; set it to 1 or leave minillm out of study.methods"
            )
        records = context.references()
        if 2 in self.defects:
            records = [*records, *context.private_prompts()]
        signal, rollouts = context.signal(), context.rollouts(self.teacher_share)
        published, precision = 20 in self.defects, context.params.optimizer.precision
        batches = PolicyBatches(
            records, self.batch_size, rollouts, signal, self, context.batch_tokens, published, precision
        )
        objective = policy_objective(signal, self.ppo_clip, weighted=19 not in self.defects)
        return Run(objective, batches, records, corpus_loss(signal) if 21 in self.defects else cross_entropy)

    def as_published(self) -> MiniLLM:
        return self.departing(INIT_IGNORED | DEFECTS, steps=min(5000, self.steps or 5000))
