"""The no-KD baseline: the student fine-tuned on public alone, the null of every figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.distill.registry import Method, Run, method
from kdleak.training.batch_sources import FixedBatches
from kdleak.training.finetune import cross_entropy

if TYPE_CHECKING:
    from kdleak.distill.context import Context


@method("sft", source="no-KD student: fine-tuned on public alone")
class SFT(Method):
    """Cross-entropy on the references; no teacher."""

    def build(self, context: Context) -> Run:
        records = context.references()
        return Run(cross_entropy, FixedBatches(records, self.batch_size, context.seed), records)

    def with_student_fraction(self, fraction: float) -> SFT:
        """The baseline of a sweep over the fraction is the same baseline."""
        return self

    def as_published(self) -> SFT:
        defect = {7: "the no-KD baseline has half of the epochs that the students have"}
        return self.departing(defect, epochs=max(1, self.epochs // 2))
