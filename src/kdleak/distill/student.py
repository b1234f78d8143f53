"""The distillation stage: a student made by one technique from the teacher and the public records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.artifacts import write_json
from kdleak.config import METHODS
from kdleak.data.encoding import Encoder
from kdleak.data.records import read_role
from kdleak.distill.finetune import cross_entropy
from kdleak.distill.run import run_training
from kdleak.distill.teacher_signal import TeacherSignal
from kdleak.distill.techniques import DIVERGENCE_OF, divergence_objective
from kdleak.errors import KdleakError, nearest
from kdleak.models.checkpoints import content_hash, load_model, load_tokenizer, save_checkpoint
from kdleak.paths import BASELINE, TEACHER

if TYPE_CHECKING:
    from kdleak.config import Params
    from kdleak.paths import Project


def make_student(method: str, params: Params, project: Project) -> None:
    """Write models/students/<method> and results/students/<method>/training.json."""
    if method not in METHODS:
        raise KdleakError(f"unknown method '{method}'; {nearest(method, METHODS)}")
    tokenizer = load_tokenizer(project.base_student)
    encoder = Encoder(tokenizer, params.model.max_prompt_tokens, params.model.max_tokens)
    records = encoder.encode_frame(read_role(project.records, "public"))
    student = load_model(project.base_student)
    if method == BASELINE:
        objective, identity = cross_entropy, ()
    else:
        teacher = load_model(project.model(TEACHER))
        signal = TeacherSignal.precompute(teacher, records, params.audit.batch_tokens)
        objective = divergence_objective(signal, DIVERGENCE_OF[method])
        identity = (content_hash(project.model(TEACHER)),)
    recipe = params.kd.recipes[method]
    history = run_training(
        student, records, objective, recipe, params, name=method, state=project.resume(method), identity=identity
    )
    save_checkpoint(student, tokenizer, project.model(method))
    write_json({"history": history, "records": len(records)}, project.training(method))
