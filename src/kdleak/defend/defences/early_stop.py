"""A control: the teacher is fine-tuned for fewer epochs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kdleak.config.schema import Count
from kdleak.core.errors import KdleakError
from kdleak.defend.registry import Acts, Defence, Fitting, defence

if TYPE_CHECKING:
    from kdleak.config.schema import Params


@defence("early_stop", acts_on=Acts.TEACHER, source="Yeom et al. 2018 (arXiv 1709.01604): leak follows overfitting")
class EarlyStop(Defence):
    """epochs: of the teacher's fine-tuning, in place of teacher.epochs; the learning rate's schedule ends with them.

    The number is chosen beforehand: one that is chosen by a loss on private records leaks through the choice.
    """

    knob = "epochs"
    strengths = (4, 3, 2, 1)
    control = True
    protects = "what the last epochs would have memorized"
    does_not_protect = "what is learned at once: repeated and outlying records; no bound for any record"
    epochs: Count = 2

    def check(self, params: Params) -> None:
        if self.epochs >= params.teacher.epochs:
            raise KdleakError(
                f"defence.epochs: 'early_stop' after {self.epochs} of {params.teacher.epochs} epochs stops nothing; "
                "set it below teacher.epochs"
            )

    def teacher(self, fitting: Fitting) -> Fitting:
        return replace(fitting, training=fitting.training.model_copy(update={"epochs": self.epochs}))
