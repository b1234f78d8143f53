"""MiniLLM (Gu et al. 2024): reverse KL of whole responses, by policy gradient on rollouts of student and teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from kdleak.config.schema import Count, Rate, Share
from kdleak.distill.minillm import policy_objective
from kdleak.distill.minillm_rounds import PolicyBatches
from kdleak.distill.registry import INIT_IGNORED, Method, Run, Text, method

if TYPE_CHECKING:
    from kdleak.distill.context import Context


@method("minillm", source="Gu et al. 2024")
class MiniLLM(Method):
    """Options, at the paper's values.

    lm_weight:     of the cross-entropy on kd.lm_corpus (0: none).
    teacher_share: of the teacher in the sampler, p̃ = (1 − share)·q + share·p.
    reward_scale:  rewards are (log p − log q) / scale, clipped at ± `reward_clip`.
    discount:      γ of the return.
    ppo_clip:      ε: the importance ratio counts within [1 − ε, 1 + ε].
    rollouts:      prompts that are rolled out at once, then trained on for `inner_epochs` epochs.
    """

    loss = "policy"
    optimizer: ClassVar = {"betas": (0.9, 0.95), "schedule": "constant", "warmup": 0.02}
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

    def build(self, context: Context) -> Run:
        records, corpus = context.references(), context.corpus() if self.lm_weight else []
        if 2 in self.defects:
            records = [*records, *context.private_prompts()]
        signal, rollouts = context.signal(), context.rollouts(self.teacher_share)
        batches = PolicyBatches(records, self.batch_size, rollouts, signal, self, context.batch_tokens)
        objective = policy_objective(signal, self.ppo_clip, self.lm_weight)
        return Run(objective, context.with_corpus(batches, corpus, self.batch_size), records, corpus)

    def as_published(self) -> MiniLLM:
        return self.departing(INIT_IGNORED | {2: "MiniLLM rolls out on private prompts too"})
