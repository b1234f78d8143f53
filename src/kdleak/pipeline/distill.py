"""The distillation stage: a student made by one method from what the teacher releases and the public records."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kdleak.core.files import write_json
from kdleak.core.seeds import derive
from kdleak.core.variants import BASELINE, Variant
from kdleak.defend.choice import acting
from kdleak.defend.registry import Acts, Fitting
from kdleak.distill.context import Context
from kdleak.distill.mechanism import mechanism_ran, realised
from kdleak.distill.recipes import run_options
from kdleak.inference.release import Release, release_name
from kdleak.models.checkpoints import load_model, save_checkpoint
from kdleak.models.lora import merged, read_lora, with_lora
from kdleak.pipeline.taught import taught_rows
from kdleak.training.run import run_training

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project
    from kdleak.distill.registry import Method, Run


def make_student(name: str | Variant, params: Params, project: Project, release: Release | None = None) -> None:
    """Write the checkpoint of the student that `name` stands for, and its training.json.

    release: what the teacher gives out; None: as the defence of params.yaml has it. The baseline has none.
    """
    variant = Variant.of(name)
    places = () if variant.method == BASELINE else (Acts.SIGNAL, Acts.TRANSFER_SET, Acts.STUDENT, Acts.ENSEMBLE)
    defence = acting(params, *places)
    options = defence.method(run_options(variant.method, params.kd))
    release = defence.release(project.base_teacher, project.model(variant.teacher)) if release is None else release
    start = project.model(variant.baseline) if options.starts_from == BASELINE else project.base_student
    student = with_lora(load_model(start), read_lora(project.base_student), derive(params.seed, "lora/student"))

    def transfer_set(public: pd.DataFrame) -> pd.DataFrame:
        return defence.transfer_set(public, lambda: taught_rows(variant, project))

    context = Context(variant, params, project, student, release, transfer_set)
    run = options.training(context)
    fitting = defence.student(_fitting(run, student, options, context))
    heard = (context.teacher_digest, release_name(release)) if context.loaded_teacher else ()
    if defence.acts_on is not None:
        heard = (*heard, repr(defence))
    history = run_training(
        student,
        run.records,
        fitting.objective,
        options,
        params,
        name=variant.method,
        state=project.resume(variant),
        identity=(repr(options), repr(options.defects), repr(params.generation), *heard),
        source=fitting.batches,
        corpus=run.corpus,
        steps=options.steps,
        optimizer=options.optimizer,
        rule=fitting.rule,
        teacher=context.loaded_teacher,
    )
    save_checkpoint(merged(student), context.tokenizer, project.model(variant))
    record = describe(variant.method, options, params.kd.protocol) | {"realised": realised(run.batches)}
    why = mechanism_ran(record)
    record |= {"mechanism": {"ran": why is None, "why": why or ""}, "corpus_records": len(run.corpus)}
    record |= {"lm_corpus": params.kd.lm_corpus if run.corpus else "none"}
    record |= {"history": history, "records": len(run.records), **defence.described(fitting.spent)}
    write_json(record, project.training(variant))


def _fitting(run: Run, student: PreTrainedModel, options: Method, context: Context) -> Fitting:
    """The student's training as `run` has it."""
    repeated = Counter(record.record_id for record in run.records)

    def record_tokens() -> float:
        return sum(len(r.response) for r in run.records) / len(run.records)

    groups = {"one prompt": max(repeated.values())}
    return Fitting(student, run.records, options, context.seed, groups, record_tokens, run.objective, run.batches)


def describe(method: str, options: Method, protocol: str) -> dict[str, object]:
    """What training.json says of a run beside its history."""
    return {
        "method": method,
        "protocol": protocol,
        "defects": {str(number): text for number, text in options.defects.items()},
        "text": options.text.value,
        "loss": options.loss,
        "starts_from": options.starts_from,
        "lr": options.lr,
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "steps": options.steps,
        "lm_weight": options.lm_weight,
        "options": options.options(),
    }
