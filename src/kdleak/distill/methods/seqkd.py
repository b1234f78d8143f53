"""Sequence-level KD (Kim and Rush 2016): cross-entropy on the teacher's own responses to the public prompts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from kdleak.config.schema import Count, Share
from kdleak.distill.methods.plain import KD
from kdleak.distill.registry import Method, Run, Text, method
from kdleak.training.batch_sources import FixedBatches
from kdleak.training.finetune import cross_entropy

if TYPE_CHECKING:
    from kdleak.distill.context import Context
    from kdleak.inference.generation import Sampling


@method("seqkd", source="Kim and Rush 2016")
class SeqKD(Method):
    """The text stage has the teacher write; training itself asks the teacher nothing.

    decoding: beam, of `beams` beginnings, the paper's way to the mode of the teacher; greedy, a beam of one; or sample,
    at generation.temperature. samples: responses to each prompt, each a record of the training.
    kd_ratio: of the KD that the study's code runs in its place.
    """

    decoding: Literal["greedy", "beam", "sample"] = "sample"
    beams: Annotated[int, Field(ge=2, le=100)] = 5
    samples: Count = 1
    kd_ratio: Share | None = None

    @model_validator(mode="after")
    def _samples_differ(self) -> SeqKD:
        if self.decoding != "sample" and self.samples > 1:
            raise ValueError(
                f"samples: {self.decoding} decoding writes the same response each time; set decoding to sample"
            )
        return self

    def sampling(self, how: Sampling) -> Sampling:
        """`how` the project's models write, with this decoding."""
        if self.decoding == "sample":
            return how
        return replace(how, temperature=0.0, beams=self.beams if self.decoding == "beam" else 1)

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
        return KD(**training, lm_weight=self.lm_weight, kd_ratio=self.kd_ratio).departing(defect)
