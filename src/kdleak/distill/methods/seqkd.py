"""Sequence-level KD (Kim and Rush 2016): cross-entropy on the teacher's own responses to the public prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from kdleak.config.schema import Count
from kdleak.distill.methods.plain import KD
from kdleak.distill.registry import Method, Run, Text, method
from kdleak.training.batch_sources import FixedBatches
from kdleak.training.finetune import cross_entropy

if TYPE_CHECKING:
    from kdleak.distill.context import Context


@method("seqkd", source="Kim and Rush 2016")
class SeqKD(Method):
    """The text stage has the teacher write; training itself asks the teacher nothing.

    decoding: greedy, the nearest to the mode of the teacher that the paper trains on (by a beam); or sample, at
    generation.temperature. samples: responses to each prompt, each a record of the training.
    """

    decoding: Literal["greedy", "sample"] = "greedy"
    samples: Count = 1

    @model_validator(mode="after")
    def _samples_differ(self) -> SeqKD:
        if self.decoding == "greedy" and self.samples > 1:
            raise ValueError("samples: greedy decoding writes the same response each time; set decoding to sample")
        return self

    @property
    def text(self) -> Text:
        return Text.TEACHER

    def build(self, context: Context) -> Run:
        records = context.teacher_text()
        return Run(cross_entropy, FixedBatches(records, self.batch_size, context.seed), records)

    def as_published(self) -> Method:
        """KD at SeqKD's own rate, which is KD's tenfold in GPT-2's scripts."""
        defect = {1: "SeqKD trains on the references with forward KL, at its own learning rate"}
        training = {"lr": self.lr, "epochs": self.epochs, "batch_size": self.batch_size, "steps": self.steps}
        return KD(**training, lm_weight=self.lm_weight).departing(defect)
