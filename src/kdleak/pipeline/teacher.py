"""The teacher stage: supervised fine-tuning on private, the members, and on the canaries planted beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.core.files import read_parquet, write_json
from kdleak.core.seeds import derive
from kdleak.core.variants import TEACHER, Variant
from kdleak.data.canaries import planted_rows
from kdleak.data.encoding import Encoder
from kdleak.data.records import read_role
from kdleak.models.checkpoints import load_model, load_tokenizer, save_checkpoint
from kdleak.models.lora import merged, read_lora, with_lora
from kdleak.training.finetune import cross_entropy
from kdleak.training.run import run_training

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


def fine_tune_teacher(params: Params, project: Project, variant: Variant = Variant(TEACHER)) -> None:  # noqa: B008
    """Write the checkpoint of the teacher that `variant` stands for, and its training.json.

    The control's is fine-tuned on as many auxiliary records as private has, and on the same canaries: same base, same
    recipe, as many steps, and no member. Auxiliary, not population: it is large enough, of the same domain by hash, and
    population stays out of every training. The bases have seen it once, which no member and no non-member has.
    """
    tokenizer = load_tokenizer(project.base_teacher)
    encoder = Encoder(tokenizer, params.model.max_prompt_tokens, params.model.max_tokens)
    planted = planted_rows(read_parquet(project.canaries))
    records = encoder.encode_frame(_data(variant, project)) + encoder.encode_frame(planted)
    base = project.base_teacher
    model = with_lora(load_model(base), read_lora(base), derive(params.seed, "lora/teacher"))
    history = run_training(
        model, records, cross_entropy, params.teacher, params, name=TEACHER, state=project.resume(variant)
    )
    save_checkpoint(merged(model), tokenizer, project.model(variant))
    write_json(
        {"history": history, "records": len(records) - len(planted), "canary_rows": len(planted)},
        project.training(variant),
    )


def _data(variant: Variant, project: Project) -> pd.DataFrame:
    """What the teacher is fine-tuned on, by record id."""
    private = read_role(project.records, "private")
    return read_role(project.records, "auxiliary").head(len(private)) if variant.control else private
