"""The base stage: a tokenizer trained on auxiliary; teacher, student and external reference pretrained on it.

A family of the hub or of a local folder brings its bases with it; they are fetched and stored in the same places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdleak.artifacts import write_json
from kdleak.data.encoding import prompt_text
from kdleak.distill.corpus import auxiliary_text, read_auxiliary
from kdleak.distill.finetune import cross_entropy
from kdleak.distill.run import run_training
from kdleak.errors import KdleakError
from kdleak.models.checkpoints import save_checkpoint
from kdleak.models.families import build_from_scratch, load_family
from kdleak.models.tokenizer import train_tokenizer
from kdleak.seeds import derive

if TYPE_CHECKING:
    from kdleak.config import Params
    from kdleak.paths import Project


def make_bases(params: Params, project: Project) -> None:
    """Write models/base/teacher, models/base/student and models/base/external, and how their pretraining went."""
    family = load_family(project.families, params.model.family)
    origins = {
        "teacher": family.teacher,
        "student": family.student(params.model.student),
        "external": family.external,
    }
    for part, origin in origins.items():
        if origin.scratch is None:
            raise KdleakError(
                f"families.yaml: {params.model.family}.{part} comes from a hub, which this version cannot load; "
                "use a family with scratch"
            )
    auxiliary = read_auxiliary(params, project)
    texts = (prompt_text(r.instruction, r.context) + r.response for r in auxiliary.itertuples())
    tokenizer = train_tokenizer(texts, family.tokenizer.vocab_size)
    records = auxiliary_text(auxiliary, params, tokenizer)
    folders = {"teacher": project.base_teacher, "student": project.base_student, "external": project.base_external}
    for part, origin in origins.items():
        model = build_from_scratch(origin.scratch, tokenizer, derive(params.seed, f"init/{part}"))
        history = run_training(
            model,
            records,
            cross_entropy,
            params.base,
            params,
            name=f"base-{part}",
            state=project.resume(f"base-{part}"),
        )
        save_checkpoint(model, tokenizer, folders[part])
        write_json({"history": history, "records": len(records)}, project.base_training(part))
