"""Sequence-level KD (Kim and Rush 2016): cross-entropy on the teacher's own responses to the public prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.distill.methods.plain import KD
from kdleak.distill.registry import Method, Run, Text, method
from kdleak.training.batch_sources import FixedBatches
from kdleak.training.finetune import cross_entropy

if TYPE_CHECKING:
    from kdleak.distill.context import Context


@method("seqkd", source="Kim and Rush 2016")
class SeqKD(Method):
    """The text stage has the teacher write; training itself asks the teacher nothing."""

    @property
    def text(self) -> Text:
        return Text.TEACHER

    def build(self, context: Context) -> Run:
        records = context.teacher_text()
        return Run(cross_entropy, FixedBatches(records, self.batch_size, context.seed), records)

    def as_published(self) -> Method:
        """KD at ten times its rate, from a recipe at KD's own rate."""
        defect = {1: "SeqKD trains on the references with forward KL, at ten times its learning rate"}
        return KD(lr=min(1.0, 10 * self.lr), epochs=self.epochs, batch_size=self.batch_size).departing(defect)
