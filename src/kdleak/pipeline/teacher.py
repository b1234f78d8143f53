"""The teacher stage: supervised fine-tuning on private, the members, and on the canaries planted beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.core.files import read_parquet, write_json
from kdleak.core.paths import TEACHER
from kdleak.core.seeds import derive
from kdleak.data.canaries import planted_rows
from kdleak.data.encoding import Encoder
from kdleak.data.records import read_role
from kdleak.models.checkpoints import load_model, load_tokenizer, save_checkpoint
from kdleak.models.lora import merged, read_lora, with_lora
from kdleak.training.finetune import cross_entropy
from kdleak.training.run import run_training

if TYPE_CHECKING:
    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


def fine_tune_teacher(params: Params, project: Project) -> None:
    """Write models/teacher and results/teacher/training.json."""
    tokenizer = load_tokenizer(project.base_teacher)
    encoder = Encoder(tokenizer, params.model.max_prompt_tokens, params.model.max_tokens)
    planted = planted_rows(read_parquet(project.canaries))
    records = encoder.encode_frame(read_role(project.records, "private")) + encoder.encode_frame(planted)
    base = project.base_teacher
    model = with_lora(load_model(base), read_lora(base), derive(params.seed, "lora/teacher"))
    history = run_training(
        model, records, cross_entropy, params.teacher, params, name=TEACHER, state=project.resume(TEACHER)
    )
    save_checkpoint(merged(model), tokenizer, project.model(TEACHER))
    write_json(
        {"history": history, "records": len(records) - len(planted), "canary_rows": len(planted)},
        project.training(TEACHER),
    )
