"""The distillation stage: a student made by one method from what the teacher releases and the public records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.core.files import write_json
from kdleak.core.seeds import derive
from kdleak.core.variants import BASELINE, Variant
from kdleak.distill.context import Context
from kdleak.distill.mechanism import mechanism_ran, realised
from kdleak.distill.recipes import run_options
from kdleak.inference.release import Release, identity, release_name
from kdleak.models.checkpoints import load_model, save_checkpoint
from kdleak.models.lora import merged, read_lora, with_lora
from kdleak.training.run import run_training

if TYPE_CHECKING:
    from kdleak.config.schema import Params
    from kdleak.core.paths import Project
    from kdleak.distill.registry import Method


def make_student(name: str | Variant, params: Params, project: Project, release: Release = identity) -> None:
    """Write the checkpoint of the student that `name` stands for, and its training.json."""
    variant = Variant.of(name)
    options = run_options(variant.method, params.kd)
    start = project.model(variant.baseline) if options.starts_from == BASELINE else project.base_student
    student = with_lora(load_model(start), read_lora(project.base_student), derive(params.seed, "lora/student"))
    context = Context(variant, params, project, student, release)
    run = options.training(context)
    heard = (context.teacher_digest, release_name(release)) if context.loaded_teacher else ()
    history = run_training(
        student,
        run.records,
        run.objective,
        options,
        params,
        name=variant.method,
        state=project.resume(variant),
        identity=(repr(options), repr(options.defects), repr(params.generation), *heard),
        source=run.batches,
        corpus=run.corpus,
        steps=options.steps,
        optimizer=options.optimizer,
        teacher=context.loaded_teacher,
    )
    save_checkpoint(merged(student), context.tokenizer, project.model(variant))
    record = describe(variant.method, options, params.kd.protocol) | {"realised": realised(run.batches)}
    why = mechanism_ran(record)
    record |= {"mechanism": {"ran": why is None, "why": why or ""}, "corpus_records": len(run.corpus)}
    record |= {"lm_corpus": params.kd.lm_corpus if run.corpus else "none"}
    write_json({**record, "history": history, "records": len(run.records)}, project.training(variant))


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
