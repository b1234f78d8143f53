"""A defence: where it acts, what it changes there, and the decorator that registers it.

Adding a defence is one file in `kdleak.defend.defences`: a frozen options class under `@defence(name, …)`. Its fields
are its knobs, with defaults and bounds that stand there and nowhere else; it overrides the one method of `Defence` that
belongs to the place where it acts. All other methods leave things as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

from kdleak.inference.release import Release, identity
from kdleak.training.finetune import cross_entropy
from kdleak.training.gradient_rules import GradientRule, PlainSum

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel

    from kdleak.config.schema import Params, Training
    from kdleak.data.encoding import EncodedRecord
    from kdleak.distill.registry import Method
    from kdleak.models.families import Lora
    from kdleak.training.batch_sources import BatchSource
    from kdleak.training.loop import Objective


class Acts(StrEnum):
    """Where a defence acts, and so which stages depend on it."""

    TEACHER = "teacher"  # on its fine-tuning
    SIGNAL = "signal"  # on what it gives out of its distribution
    TRANSFER_SET = "transfer set"  # on the public records that it is asked about
    STUDENT = "student"  # on the student's training
    ENSEMBLE = "teacher and signal"  # on who is fine-tuned on what, and on what all of them give out


@dataclass(frozen=True)
class Fitting:
    """A training as its stage would run it; a defence returns another.

    model:         what is trained, before adapters are put in.
    records:       what it is trained on.
    training:      lr, epochs, batch_size.
    seed:          of the training's batches.
    groups:        sizes of the largest groups of records that speak of one thing, by what makes them a group.
    record_tokens: response tokens of a record, on the average of the public ones: a constant that private records have
                   no part in.
    batches:       None: every record once an epoch.
    optimizer:     fields of `kdleak.training.loop.Recipe`.
    spent:         the privacy that the training spends, for its training.json; empty where nothing is accounted.
    """

    model: PreTrainedModel
    records: Sequence[EncodedRecord]
    training: Training
    seed: int
    groups: Mapping[str, int]
    record_tokens: Callable[[], float]
    objective: Objective = cross_entropy
    batches: BatchSource | None = None
    rule: GradientRule = field(default_factory=PlainSum)
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    lora: Lora | None = None
    spent: Mapping[str, Any] = field(default_factory=dict)


class Defence(BaseModel):
    """Base of every defence's options; itself no defence.

    name, source, acts_on: what `@defence` was given.
    knob:             the option that is its strength; "" where it has none.
    strengths:        values of the knob in the default grid, the weakest first.
    control:          whether it is no defence but what defences are compared with.
    protects:         what it claims to protect, in words for docs/defences.md.
    does_not_protect: and what not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    name: ClassVar[str]
    source: ClassVar[str]
    acts_on: ClassVar[Acts | None]
    knob: ClassVar[str] = ""
    strengths: ClassVar[tuple[float | int, ...]] = ()
    control: ClassVar[bool] = False
    protects: ClassVar[str]
    does_not_protect: ClassVar[str]

    def check(self, params: Params) -> None:
        """Raise KdleakError for options that contradict other sections of params.yaml, or cannot be had here."""

    def teacher(self, fitting: Fitting) -> Fitting:
        """The teacher's fine-tuning on private."""
        return fitting

    def shards(self, owners: Sequence[str]) -> Sequence[int]:
        """Which teacher is fine-tuned on each record, 0 to K − 1: (n,). owners: of each record, what stays together
        (near-duplicates, the repetitions of a canary). Teacher 0 is the checkpoint; `shard_folder` has the others."""
        return [0] * len(owners)

    def release(self, public_base: Path, teacher: Path) -> Release:
        """What the teacher gives out. public_base: the checkpoint that it was fine-tuned from; teacher: its own."""
        return identity

    def transfer_set(self, public: pd.DataFrame, private: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The rows of `public` that a student is distilled on."""
        return public

    def method(self, options: Method) -> Method:
        """The options of the student's method; KdleakError where they and the defence exclude each other."""
        return options

    def student(self, fitting: Fitting) -> Fitting:
        """The student's training on public."""
        return fitting

    def described(self, spent: Mapping[str, Any]) -> dict[str, Any]:
        """What training.json says of it, beside what the training has spent of privacy; nothing of no defence."""
        if self.acts_on is None:
            return {}
        return {"defence": {"name": self.name, "acts_on": self.acts_on.value, "knobs": self.model_dump(), **spent}}


def shard_folder(teacher: Path, number: int) -> Path:
    """Where teacher `number` of several stands, in the folder of the first one."""
    return teacher / "shards" / str(number) if number else teacher


#: The registered defences by name; complete once `kdleak.defend.defences` has been imported.
REGISTERED: dict[str, type[Defence]] = {}
_D = TypeVar("_D", bound=type[Defence])


def defence(name: str, *, acts_on: Acts | None, source: str) -> Callable[[_D], _D]:
    """Register an options class under `name`, by which defence.name calls it.

    acts_on: None for `none` alone. source: its paper. The name becomes part of paths: lower-case letters, digits and
    underscores.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"defence name {name!r}: use lower-case letters, digits and underscores")

    def register(options: _D) -> _D:
        if name in REGISTERED:
            raise ValueError(f"two defences are called {name!r}; rename one")
        options.name, options.acts_on, options.source = name, acts_on, source
        REGISTERED[name] = options
        return options

    return register
