"""A method of distillation: what its file says about it, and the decorator that registers it.

Adding a method is one file in `kdleak.distill.methods`: a frozen options class under `@method(name, source=…)`. Its
fields are what the method's recipe may set, with defaults and bounds that stand there and nowhere else; `build` makes
its training. kd.recipes in params.yaml needs to list only what differs from the defaults.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, PrivateAttr

from kdleak.config.schema import Count, Rate, Training
from kdleak.core.errors import KdleakError
from kdleak.core.seeds import derive
from kdleak.core.variants import BASELINE
from kdleak.training.batch_sources import FixedBatches, WithCorpus
from kdleak.training.finetune import cross_entropy, with_corpus_loss
from kdleak.training.loop import total_steps

if TYPE_CHECKING:
    from kdleak.data.encoding import EncodedRecord
    from kdleak.distill.context import Context
    from kdleak.training.batch_sources import BatchSource
    from kdleak.training.loop import Objective

#: Defect 3 of the study's published code, which all of its on-policy methods share (docs/protocol.md numbers them).
INIT_IGNORED = {3: "the init checkpoint is not read: the student starts from its pretrained base"}


class Text(StrEnum):
    """Who wrote the responses that a student learns from."""

    REFERENCES = "references"  # the public records' own
    TEACHER = "teacher"  # the teacher, to the public prompts, once
    MIXED = "mixed"  # the student itself with a constant probability, else the references
    ADAPTIVE = "adaptive"  # the same, with a probability that follows the validation loss
    POLICY = "policy"  # the mixture of student and teacher, in rounds


@dataclass(frozen=True)
class Run:
    """The training that `Method.build` makes.

    objective, batches: what the training loop is given.
    records:            what the batches are made of.
    corpus_loss:        what is taken of a batch of kd.lm_corpus, where a weight asks for it.
    corpus:             the records of it that stand beside the batches; `Method.training` adds them.
    """

    objective: Objective
    batches: BatchSource
    records: Sequence[EncodedRecord]
    corpus_loss: Objective = cross_entropy
    corpus: Sequence[EncodedRecord] = ()


class Method(Training):
    """Base of every method's options: a recipe, checked.

    steps:        optimizer steps at most; None: as many as `epochs` hold.
    lm_weight:    of a loss on kd.lm_corpus, a batch of which then stands beside each batch (0: none).
    start:        the student's first checkpoint, "base" or "baseline"; None: as the method defines it.
    name, source: what `@method` was given.
    loss:         label of the objective in results: "ce", "policy" or a key of `divergences.DIVERGENCES`.
    renamed:      former names of options -> what to write now.
    """

    lr: Rate = 0.001
    epochs: Count = 4
    batch_size: Count = 8
    steps: Count | None = None
    lm_weight: Annotated[float, Field(ge=0)] = 0.0
    start: Literal["base", "baseline"] | None = None

    name: ClassVar[str]
    source: ClassVar[str]
    loss: ClassVar[str] = "ce"
    renamed: ClassVar[Mapping[str, str]] = {}
    _defects: Mapping[int, str] = PrivateAttr(default_factory=dict)

    def build(self, context: Context) -> Run:
        """The training of this method on what `context` gives out, its corpus left out."""
        raise NotImplementedError

    def training(self, context: Context) -> Run:
        """What `build` makes, and `lm_weight` times the loss on kd.lm_corpus beside it."""
        run = self.build(context)
        if not self.lm_weight:
            return run
        corpus = context.corpus(self.batch_size * self.total_steps(run.batches.steps_per_epoch))
        beside = WithCorpus(run.batches, FixedBatches(corpus, self.batch_size, derive(context.seed, "corpus")))
        objective = with_corpus_loss(run.objective, self.lm_weight, run.corpus_loss)
        return replace(run, objective=objective, batches=beside, corpus=corpus)

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps of the whole training."""
        return total_steps(steps_per_epoch, self.epochs, self.steps)

    @property
    def optimizer(self) -> Mapping[str, Any]:
        """Fields of `kdleak.training.loop.Recipe` that the method sets itself."""
        return {}

    @property
    def text(self) -> Text:
        """Who writes the responses that the student learns from."""
        return Text.REFERENCES

    @property
    def starts_from(self) -> str:
        """The student's first checkpoint: `start`, else the baseline where it learns from its own text, else "base"."""
        if self.start is not None:
            return BASELINE if self.start == "baseline" else "base"
        on_policy = self.text in (Text.MIXED, Text.ADAPTIVE, Text.POLICY)
        return BASELINE if on_policy and 3 not in self.defects else "base"

    @property
    def defects(self) -> Mapping[int, str]:
        """What this run does as the study's published code did instead of what the paper defines, by number."""
        return self._defects

    def options(self) -> dict[str, Any]:
        """What is set of the method's own options."""
        return self.model_dump(exclude=set(Method.model_fields), exclude_none=True)

    def with_student_fraction(self, fraction: float) -> Method:
        """The same objective on student-written data with probability `fraction` (kd.student_fraction)."""
        raise KdleakError(
            f"kd.student_fraction: '{self.name}' decides itself whose text it learns from; "
            "use it with a divergence on fixed data, imitkd or gkd"
        )

    def as_published(self) -> Method:
        """The method that the study's published code ran in this one's place (kd.protocol as_published)."""
        return self

    def departing(self, defects: Mapping[int, str], **changes: Any) -> Self:
        """A copy with `defects`, and with `changes` of its options."""
        copy = self.model_copy(update=changes)
        copy._defects = defects
        return copy


#: The registered methods by name; complete once `kdleak.distill.methods` has been imported.
REGISTERED: dict[str, type[Method]] = {}
_M = TypeVar("_M", bound=type[Method])


def method(name: str, *, source: str) -> Callable[[_M], _M]:
    """Register an options class under `name`, by which kd.method and kd.recipes call it; `source`: its paper.

    The name becomes part of paths and command lines: lower-case letters, digits and underscores.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"method name {name!r}: use lower-case letters, digits and underscores")

    def register(options: _M) -> _M:
        if name in REGISTERED:
            raise ValueError(f"two methods are called {name!r}; rename one")
        options.name, options.source = name, source
        REGISTERED[name] = options
        return options

    return register
