"""What a method builds its training from: records, the teacher's signal, rollouts.

Records reach a student through a `Context` alone, which refuses the teacher's members under the corrected protocol;
the teacher is heard through its release alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from kdleak.core.errors import KdleakError
from kdleak.core.variants import Variant
from kdleak.data.encoding import EncodedRecord, Encoder
from kdleak.data.records import read_role
from kdleak.distill.guard import refuse_members
from kdleak.distill.rollouts import Rollouts
from kdleak.distill.teacher_signal import HiddenStateCache, LiveTeacher, TeacherSignal, cached_teacher
from kdleak.distill.teacher_text import with_teacher_text
from kdleak.inference.generation import Sampling, TeacherMixture
from kdleak.inference.release import Release, identity
from kdleak.models.checkpoints import load_model, load_tokenizer
from kdleak.models.model_files import content_hash
from kdleak.models.output_head import output_head
from kdleak.training.corpus import lm_corpus
from kdleak.training.finetune import evaluate
from kdleak.training.run import training_seed

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


Records = TypeVar("Records", bound=Sequence[EncodedRecord])


class Context:
    """The surroundings of one distillation, read when they are first asked for."""

    def __init__(
        self,
        name: str | Variant,
        params: Params,
        project: Project,
        student: PreTrainedModel,
        release: Release = identity,
        transfer_set: Callable[[pd.DataFrame], pd.DataFrame] = lambda public: public,
    ):
        """release: what the teacher gives out. transfer_set: the public records of which a student learns."""
        self.variant, self.params, self.project = Variant.of(name), params, project
        self._student, self._release, self._transfer_set = student, release, transfer_set
        self.tokenizer = load_tokenizer(project.base_student)
        self.encoder = Encoder(self.tokenizer, params.model.max_prompt_tokens, params.model.max_tokens)
        #: The seed of everything random in this training.
        self.seed = training_seed(params, self.variant.method)
        #: Padded tokens in one forward pass that needs no gradient.
        self.batch_tokens = params.compute.batch_tokens

    def references(self) -> list[EncodedRecord]:
        """The public records with their own responses."""
        return self._admitted(self.encoder.encode_frame(self._public))

    def validation(self) -> list[EncodedRecord]:
        """The records of the role population: seen by no training, the baseline's included."""
        return self.encoder.encode_frame(read_role(self.project.records, "population"))

    def teacher_text(self) -> list[EncodedRecord]:
        """The public records with the responses that the text stage had the teacher write."""
        path = self.project.training_text(self.variant.method)
        return with_teacher_text(self.references(), path, self.encoder.eos_id)

    def private_prompts(self) -> list[EncodedRecord]:
        """The teacher's members; never under the corrected protocol."""
        return self._admitted(self._members)

    def corpus(self, most: int) -> Sequence[EncodedRecord]:
        """The text of kd.lm_corpus, with a loss on all of its tokens; where it is no role's, `most` records at most."""
        return self._admitted(lm_corpus(self.params, self.project, self.tokenizer, most))

    def signal(self, records: Sequence[EncodedRecord] = ()) -> TeacherSignal:
        """What the teacher releases; its hidden states for `records` are computed once and cached."""
        live = LiveTeacher(self._teacher, self._release)
        if not records:
            return live
        cache = HiddenStateCache(self.project.hidden_states)
        digest = self.teacher_digest + getattr(self._release, "digest", "")
        return cached_teacher(live, digest, records, cache, self.batch_tokens)

    def rollouts(self, teacher_share: float = 0.0) -> Rollouts:
        """Writes responses by the student; by its mixture with that share of what the teacher releases."""
        mixture = TeacherMixture(self._teacher, teacher_share, self._release) if teacher_share else None
        return Rollouts(sampling(self.params), self.encoder.eos_id, self.seed, mixture)

    def validation_loss(self, model: PreTrainedModel, records: Sequence[EncodedRecord]) -> float:
        """Mean cross-entropy over the response tokens of `records`, nats."""
        return evaluate(model, records, self.batch_tokens)

    @cached_property
    def teacher_digest(self) -> str:
        """sha256 of the teacher's checkpoint."""
        return content_hash(self.project.model(self.variant.teacher))

    @property
    def loaded_teacher(self) -> PreTrainedModel | None:
        """The teacher, where the method has asked for its signal."""
        return vars(self).get("_teacher")

    @cached_property
    def _teacher(self) -> PreTrainedModel:
        teacher = load_model(self.project.model(self.variant.teacher)).requires_grad_(False)
        sizes = [len(output_head(model).weight) for model in (self._student, teacher)]
        if sizes[0] != sizes[1]:
            raise KdleakError(
                f"the student predicts {sizes[0]} tokens, the teacher {sizes[1]}; distributions can only be compared "
                "over one vocabulary: take both from one family"
            )
        return teacher

    @cached_property
    def _public(self) -> pd.DataFrame:
        return self._transfer_set(read_role(self.project.records, "public"))

    @cached_property
    def _members(self) -> list[EncodedRecord]:
        return self.encoder.encode_frame(read_role(self.project.records, "private"))

    def _admitted(self, records: Records) -> Records:
        if self.params.kd.protocol == "corrected":
            refuse_members(records, self._members)
        return records


def sampling(params: Params) -> Sampling:
    """How students and the teacher write."""
    limits = {"max_tokens": params.model.max_tokens, "batch_size": params.compute.generation_batch}
    return Sampling(**params.generation.model_dump(), **limits)
