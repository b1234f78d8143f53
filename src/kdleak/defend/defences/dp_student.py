"""DP-SGD of the student: the counter-example, whose ε says nothing of the teacher's data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.core.errors import KdleakError
from kdleak.defend.dp import PrivateTraining
from kdleak.defend.registry import Acts, Fitting, defence

if TYPE_CHECKING:
    from kdleak.distill.registry import Method


@defence("dp_student", acts_on=Acts.STUDENT, source="as DP-OPD (arXiv 2604.04461) trains a student")
class PrivateStudent(PrivateTraining):
    """The student's training on public by DP-SGD. It starts from its pretrained base: a start that has been fine-tuned
    on public without noise would leave ε with nothing to cover."""

    protects = "the public records that the student is distilled on"
    does_not_protect = "the teacher's private records: its ε says nothing of them"

    def method(self, options: Method) -> Method:
        if options.text.value not in ("references", "teacher") or options.lm_weight:
            raise KdleakError(
                f"defence.name: 'dp_student' cannot train '{options.name}', whose batches hold more than records drawn "
                "by themselves; name a method on fixed data (kd, seqkd, rkl …) without an LM corpus"
            )
        return options.model_copy(update={"start": "base"})

    def student(self, fitting: Fitting) -> Fitting:
        return self.private(fitting, "public", "the teacher's private data")
