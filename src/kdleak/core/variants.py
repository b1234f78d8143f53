"""A run's name: which model it makes or audits, and in what it differs from the run of params.yaml as it stands."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import PurePosixPath

#: The method of the teacher, which is fine-tuned on private.
TEACHER = "teacher"
#: The method of the no-KD baseline, the student fine-tuned on public alone.
BASELINE = "sft"


@dataclass(frozen=True)
class Variant:
    """A model of the pipeline. With a method alone it is the default run's.

    method:    `teacher`, or the method that makes the student.
    defence:   what keeps the teacher's data private, by name.
    shadow:    number of a shadow pair: teacher and student on its half of the records.
    seed:      of the distillation (batch order, dropout, rollouts), where it is not that of params.yaml.
    rate:      multiplier of the learning rate of the method's recipe.
    grid:      kd.grid of this run.
    fraction:  kd.student_fraction of this run.
    lm_weight: kd.lm_weight of this run.
    control:   of the pair whose teacher saw no member: it is fine-tuned on auxiliary in place of private.
    """

    method: str
    defence: str | None = None
    shadow: int | None = None
    seed: int | None = None
    rate: float | None = None
    grid: str | None = None
    fraction: float | None = None
    lm_weight: float | None = None
    control: bool | None = None

    @classmethod
    def of(cls, name: str | Variant) -> Variant:
        """`name` itself, or the default run of the method that it names."""
        return name if isinstance(name, Variant) else cls(name)

    @property
    def is_default(self) -> bool:
        return not self.difference

    @property
    def is_teacher(self) -> bool:
        return self.method == TEACHER

    @property
    def is_distilled(self) -> bool:
        """Whether it is a student that learned from a teacher."""
        return self.method not in (TEACHER, BASELINE)

    @property
    def teacher(self) -> Variant:
        """The teacher that a student of this run learns from: trained under its defence, on its half."""
        return Variant(TEACHER, defence=self.defence, shadow=self.shadow, control=self.control)

    @property
    def baseline(self) -> Variant:
        """The no-KD student beside this run, one for all: it has seen no teacher, and is no distillation."""
        return Variant(BASELINE)

    @property
    def difference(self) -> dict[str, object]:
        """What sets the run apart from the default run of its method."""
        parts = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "method"}
        return {name: value for name, value in parts.items() if value is not None}

    @property
    def name(self) -> str:
        """What sets it apart, as one word: `rate-0.5`, `seed-1`; "" of a default run."""
        return "-".join(name if value is True else f"{name}-{value}" for name, value in self.difference.items())

    @property
    def path(self) -> PurePosixPath:
        """The folder of its results: `teacher`, `students/kd`, `students/kd/runs/rate-0.5`, `control/students/kd`.

        No run's folder lies in that of a run which is not its method's default.
        """
        home = PurePosixPath(TEACHER) if self.is_teacher else PurePosixPath("students", self.method)
        if self.control:
            return "control" / home
        return home if self.is_default else home / "runs" / self.name

    def __str__(self) -> str:
        """One word, for folders of checkpoints and of state: `kd`, `kd-rate-0.5`."""
        return self.method if self.is_default else f"{self.method}-{self.name}"


#: A student of a teacher that saw no member: what an attack finds in it, no student gave away.
CONTROL = Variant("kd", control=True)
