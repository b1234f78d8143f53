"""Control arms: teachers on the same halves as the shadow models', under a defence of their own.

Distillation makes a student that leaks less than its teacher and is worse. So does stopping the teacher early, or
regularising it. What distillation keeps back beyond that is measured against such a teacher.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.core.errors import KdleakError, nearest
from kdleak.defend.choice import check_defence
from kdleak.defend.defences import DEFENCES
from kdleak.defend.grid import section_of
from kdleak.defend.registry import Acts

if TYPE_CHECKING:
    from kdleak.config.schema import Params


def is_arm(name: str) -> bool:
    """Whether a shadow model of that name is the teacher of an arm (`early_stop=2`)."""
    return "=" in name


def of_arm(name: str, params: Params) -> Params:
    """params.yaml with the defence of the arm `name`, its strength in its own unit.

    Raises KdleakError for one that is unknown, does not act on the teacher's training, or has no such strength.
    """
    called, _, strength = name.partition("=")
    on_teacher = sorted(each for each, options in DEFENCES.items() if options.acts_on is Acts.TEACHER and options.knob)
    if called not in on_teacher:
        raise KdleakError(
            f"shadow.arms: '{called}' is no defence of a teacher's training; {nearest(called, on_teacher)}"
        )
    value = float(strength) if "." in strength else int(strength)
    settings = params.model_copy(update={"defence": section_of(called, {DEFENCES[called].knob: value})})
    check_defence(settings, f"shadow.arms, {name}")
    return settings
