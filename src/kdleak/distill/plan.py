"""What a run will do: a technique with its recipe, under one of the two protocols.

`corrected` is what the cited papers define. `as_published` is what the study's published code did instead; each
departure has a number and is named in the run's record.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kdleak.core.errors import KdleakError, nearest
from kdleak.distill.techniques import CROSS_ENTROPY, TECHNIQUES, Technique, Text

if TYPE_CHECKING:
    from kdleak.config.schema import Distillation

#: What the published code did, by number.
DEFECTS = {
    1: "SeqKD trains on the references with forward KL, at ten times its learning rate",
    2: "MiniLLM rolls out on private prompts too",
    3: "the init checkpoint is not read: the student starts from its pretrained base",
    4: "the first token of student-written responses is never distilled",
    7: "the No-KD baseline has half of the epochs that the students have",
}


@dataclass(frozen=True)
class Plan:
    """All that decides a student, beside its data.

    options:          the technique's options, from its recipe or at the paper's value.
    from_sft:         start from the `sft` student rather than from the pretrained base.
    private_prompts:  roll out on the teacher's private prompts too (defect 2).
    drop_first_token: leave out the first token of rollouts (defect 4).
    defects:          numbers of the published code's defects that this run reproduces.
    """

    method: str
    protocol: str
    technique: Technique
    lr: float
    epochs: int
    batch_size: int
    options: dict[str, float]
    from_sft: bool
    private_prompts: bool = False
    drop_first_token: bool = False
    defects: tuple[int, ...] = ()

    def record(self) -> dict:
        """What the run's record says of it."""
        return {
            "method": self.method,
            "protocol": self.protocol,
            "defects": {str(n): DEFECTS[n] for n in self.defects},
            "text": self.technique.text.value,
            "loss": self.technique.loss,
            "starts_from": "sft" if self.from_sft else "base",
            "lr": self.lr,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "options": self.options,
        }


def make_plan(method: str, kd: Distillation) -> Plan:
    """The plan of `method` under `kd.protocol`, with `kd.student_fraction` where it is set."""
    if method not in TECHNIQUES:
        raise KdleakError(f"unknown method '{method}'; {nearest(method, TECHNIQUES)}")
    technique, recipe = TECHNIQUES[method], kd.recipes[method]
    options = {**technique.options, **recipe.options()}
    if kd.student_fraction is not None and method != "sft":
        technique, options = _with_student_text(method, technique, options, kd.student_fraction)
    plan = Plan(
        method, kd.protocol, technique, recipe.lr, recipe.epochs, recipe.batch_size, options, technique.on_policy
    )
    return _as_published(plan) if kd.protocol == "as_published" else plan


def _with_student_text(
    method: str, technique: Technique, options: dict[str, float], fraction: float
) -> tuple[Technique, dict[str, float]]:
    """The same divergence on student-written data with probability `fraction`; 0 too starts from `sft`, so that a
    sweep changes the data alone."""
    if technique.text not in (Text.REFERENCES, Text.MIXED):
        raise KdleakError(
            f"kd.student_fraction: '{method}' decides itself whose words it learns from; "
            "use it with a divergence on fixed data, imitkd or gkd"
        )
    return replace(technique, text=Text.MIXED), {**options, "student_fraction": fraction}


def _as_published(plan: Plan) -> Plan:
    """`plan` with the published code's departures, from the recipe of the method itself: a recipe of KD's own rate
    for SeqKD, and of KD's own budget for the baseline, are what the corrected protocol starts from."""
    if plan.method == "seqkd":
        technique = replace(plan.technique, text=Text.REFERENCES, loss="fkl")
        return replace(plan, technique=technique, lr=min(1.0, 10 * plan.lr), defects=(1,))
    if plan.method == "minillm":
        return replace(plan, from_sft=False, private_prompts=True, defects=(2, 3))
    if plan.technique.on_policy:
        return replace(plan, from_sft=False, drop_first_token=True, defects=(3, 4))
    if plan.technique.loss == CROSS_ENTROPY:
        return replace(plan, epochs=max(1, plan.epochs // 2), defects=(7,))
    return plan
