"""The distillation stage: a student made by one method from what the teacher releases and the public records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.core.files import write_json
from kdleak.core.paths import BASELINE
from kdleak.core.seeds import derive
from kdleak.distill.context import Context
from kdleak.distill.recipes import run_options
from kdleak.inference.release import Release, identity, release_name
from kdleak.models.checkpoints import load_model, save_checkpoint
from kdleak.models.lora import merged, read_lora, with_lora
from kdleak.training.run import run_training

if TYPE_CHECKING:
    from kdleak.config.schema import Params
    from kdleak.core.paths import Project
    from kdleak.distill.registry import Method


def make_student(method: str, params: Params, project: Project, release: Release = identity) -> None:
    """Write models/students/<method> and results/students/<method>/training.json."""
    options = run_options(method, params.kd)
    start = project.model(BASELINE) if options.starts_from == BASELINE else project.base_student
    student = with_lora(load_model(start), read_lora(project.base_student), derive(params.seed, "lora/student"))
    context = Context(method, params, project, student, release)
    run = options.build(context)
    generation = params.kd.generation.model_dump(exclude={"batch_size"})
    heard = (context.teacher_digest, release_name(release)) if context.loaded_teacher else ()
    history = run_training(
        student,
        [*run.records, *run.corpus],
        run.objective,
        options,
        params,
        name=method,
        state=project.resume(method),
        identity=(repr(options), repr(options.defects), repr(generation), *heard),
        source=run.batches,
        optimizer=options.optimizer,
        teacher=context.loaded_teacher,
    )
    save_checkpoint(merged(student), context.tokenizer, project.model(method))
    record = describe(method, options, params.kd.protocol)
    write_json({**record, "history": history, "records": len(run.records)}, project.training(method))


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
        "options": options.options(),
    }
