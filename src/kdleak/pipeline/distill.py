"""The distillation stage: a student made by one technique from the teacher and the public records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from kdleak.core.errors import KdleakError
from kdleak.core.files import write_json
from kdleak.core.seeds import derive
from kdleak.core.variants import Variant
from kdleak.data.encoding import EncodedRecord, Encoder
from kdleak.data.records import read_role
from kdleak.distill import minillm
from kdleak.distill.divergences import divergence_with
from kdleak.distill.guard import refuse_members
from kdleak.distill.matching import matching_objective
from kdleak.distill.minillm_rounds import PolicyBatches
from kdleak.distill.plan import Plan, make_plan
from kdleak.distill.rollouts import (
    AdaptiveShare,
    ConstantShare,
    ReplayBuffer,
    RolloutBatches,
    Rollouts,
    Share,
)
from kdleak.distill.teacher_signal import HiddenStateCache, LiveTeacher, cached_teacher
from kdleak.distill.techniques import POLICY_GRADIENT, Text
from kdleak.inference.generation import Sampling, TeacherMixture
from kdleak.models.checkpoints import content_hash, load_model, load_tokenizer, save_checkpoint
from kdleak.models.lora import merged, read_lora, with_lora
from kdleak.pipeline.text import with_teacher_text
from kdleak.training.batch_sources import BatchSource, FixedBatches, WithCorpus
from kdleak.training.corpus import lm_corpus
from kdleak.training.finetune import cross_entropy, evaluate
from kdleak.training.loop import Objective
from kdleak.training.run import run_training, training_seed

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


@dataclass(frozen=True)
class _Setting:
    """What a plan is carried out with."""

    plan: Plan
    params: Params
    project: Project
    tokenizer: PreTrainedTokenizerBase
    seed: int
    records: Sequence[EncodedRecord]
    validation: Sequence[EncodedRecord]
    corpus: Sequence[EncodedRecord]


def make_student(name: str | Variant, params: Params, project: Project) -> None:
    """Write the checkpoint of the student that `name` stands for, and its training.json."""
    variant = Variant.of(name)
    plan = make_plan(variant.method, params.kd)
    start = project.model(variant.baseline) if plan.from_sft else project.base_student
    setting = _set_up(plan, params, project)
    student = with_lora(load_model(start), read_lora(project.base_student), derive(params.seed, "lora/student"))
    objective, source, teacher, identity = cross_entropy, None, None, ()
    if plan.technique.needs_teacher:
        teacher = load_model(project.model(variant.teacher)).requires_grad_(False)
        _same_vocabulary(student, teacher)
        identity = (content_hash(project.model(variant.teacher)),)
        if plan.technique.loss == POLICY_GRADIENT:
            objective, source = _policy_gradient(setting, teacher)
        else:
            objective, source = _matching(setting, teacher, identity[0])
    history = run_training(
        student,
        [*setting.records, *setting.corpus],
        objective,
        plan,
        params,
        name=variant.method,
        state=project.resume(variant),
        identity=(*identity, repr(plan), repr(params.generation)),
        source=source or FixedBatches(setting.records, plan.batch_size, setting.seed),
        optimizer=plan.technique.optimizer,
        teacher=teacher,
    )
    save_checkpoint(merged(student), setting.tokenizer, project.model(variant))
    write_json({**plan.record(), "history": history, "records": len(setting.records)}, project.training(variant))


def _same_vocabulary(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    sizes = [m.get_output_embeddings().out_features for m in (student, teacher)]
    if sizes[0] != sizes[1]:
        raise KdleakError(
            f"the student predicts {sizes[0]} words, the teacher {sizes[1]}; distributions can only be compared "
            "over one vocabulary: take both from one family"
        )


def _set_up(plan: Plan, params: Params, project: Project) -> _Setting:
    """Encode what the student will learn from; by the corrected protocol, make sure that no member is among it."""
    tokenizer = load_tokenizer(project.base_student)
    encoder = Encoder(tokenizer, params.model.max_prompt_tokens, params.model.max_tokens)
    public = read_role(project.records, "public")
    members = encoder.encode_frame(read_role(project.records, "private"))
    held_out = held_out_part(public, plan.options.get("validation_share", 0.0), derive(params.seed, "validation"))
    records = encoder.encode_frame(public[~held_out])
    validation = encoder.encode_frame(public[held_out])
    corpus = lm_corpus(params, project, tokenizer) if plan.options.get("lm_weight", 0) > 0 else []
    if plan.technique.text is Text.TEACHER:
        records = with_teacher_text(records, project.training_text(plan.method), tokenizer.eos_token_id)
    if plan.private_prompts:
        records = [*records, *members]
    if params.kd.protocol == "corrected":
        refuse_members([*records, *validation, *corpus], members)
    return _Setting(plan, params, project, tokenizer, training_seed(params, plan.method), records, validation, corpus)


def held_out_part(public: pd.DataFrame, share: float, seed: int) -> pd.Series:
    """Which rows of `public` are kept for validation: whole groups, drawn by a hash of (seed, group_id)."""
    chosen = public["group_id"].map(lambda group: derive(seed, str(group)) < share * 2**31)
    if share > 0 and not 0 < chosen.sum() < len(chosen):
        order = public["group_id"].map(lambda group: derive(seed, str(group)))
        chosen = order == order.min()
    return chosen.astype(bool)


def _matching(setting: _Setting, teacher: PreTrainedModel, digest: str) -> tuple[Objective, BatchSource]:
    """Objective and batches of the techniques that minimise a divergence."""
    plan, params = setting.plan, setting.params
    cache = HiddenStateCache(setting.project.hidden_states)
    signal = cached_teacher(teacher, digest, setting.records, cache, params.compute.batch_tokens)
    divergence = divergence_with(plan.technique.loss, plan.options)
    source: BatchSource = FixedBatches(setting.records, plan.batch_size, setting.seed)
    if plan.technique.on_policy:
        capacity = plan.options.get("replay_capacity")
        source = RolloutBatches(
            source,
            _share(setting),
            _rollouts(setting),
            plan.epochs,
            ReplayBuffer(int(capacity)) if capacity else None,
            plan.drop_first_token,
        )
    return matching_objective(signal, divergence, plan.options.get("lm_weight", 0.0)), _with_corpus(setting, source)


def _policy_gradient(setting: _Setting, teacher: PreTrainedModel) -> tuple[Objective, BatchSource]:
    """Objective and batches of MiniLLM."""
    plan = setting.plan
    signal = LiveTeacher(teacher)
    settings = minillm.Settings(**{k: v for k, v in plan.options.items() if k != "lm_weight"})
    rollouts = _rollouts(setting, TeacherMixture(teacher, settings.teacher_share))
    tokens = setting.params.compute.batch_tokens
    source = PolicyBatches(setting.records, plan.batch_size, rollouts, signal, settings, tokens)
    objective = minillm.policy_objective(signal, settings, plan.options["lm_weight"])
    return objective, _with_corpus(setting, source)


def _rollouts(setting: _Setting, mixture: TeacherMixture | None = None) -> Rollouts:
    params = setting.params
    limits = {"max_tokens": params.model.max_tokens, "batch_size": params.compute.generation_batch}
    sampling = Sampling(**params.generation.model_dump(), **limits)
    return Rollouts(sampling, setting.tokenizer.eos_token_id, setting.seed, mixture)


def _share(setting: _Setting) -> Share:
    options = setting.plan.options
    if setting.plan.technique.text is Text.MIXED:
        return ConstantShare(options["student_fraction"], through_buffer="replay_capacity" in options)
    validation_loss = partial(evaluate, records=setting.validation, batch_tokens=setting.params.compute.batch_tokens)
    return AdaptiveShare(validation_loss, options["threshold_step"], options["tolerance"])


def _with_corpus(setting: _Setting, source: BatchSource) -> BatchSource:
    if not setting.corpus:
        return source
    return WithCorpus(source, FixedBatches(setting.corpus, setting.plan.batch_size, derive(setting.seed, "corpus")))
