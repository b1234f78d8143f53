"""The base stage: a tokenizer trained on auxiliary; teacher, student and external reference pretrained on it.

A family of the hub or of a local folder brings its bases with it; they are fetched and stored in the same places.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kdleak.core.files import write_json
from kdleak.core.seeds import derive
from kdleak.data.records import read_role
from kdleak.data.templates import prompt_text
from kdleak.models.checkpoints import copy_checkpoint, on_device, save_checkpoint
from kdleak.models.compatibility import check_fit
from kdleak.models.device import resolve_device
from kdleak.models.families import build_from_scratch, load_family
from kdleak.models.hub import model_folder
from kdleak.models.lora import write_lora
from kdleak.models.tokenizer import train_tokenizer
from kdleak.training.finetune import auxiliary_text, cross_entropy
from kdleak.training.run import run_training

if TYPE_CHECKING:
    from pathlib import Path

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


def make_bases(params: Params, project: Project) -> None:
    """Write models/base/teacher, models/base/student and models/base/external, and how their pretraining went.

    Raises KdleakError where a model cannot be had, or the models do not fit together.
    """
    family = load_family(project.families, params.model.family)
    origins = {
        "teacher": family.teacher,
        "student": family.student(params.model.student),
        "external": family.external,
    }
    folders = {"teacher": project.base_teacher, "student": project.base_student, "external": project.base_external}
    for part, origin in origins.items():
        if origin.hub is not None:
            copy_checkpoint(model_folder(origin.hub, origin.revision), folders[part])
            write_json({"history": [], "records": 0}, project.base_training(part))
    scratch = {part: origin.scratch for part, origin in origins.items() if origin.scratch is not None}
    if scratch:
        assert family.tokenizer is not None  # a family with a scratch part has one
        _pretrain(scratch, family.tokenizer.vocab_size, folders, params, project)
    for part in ("teacher", "student"):
        write_lora(family.lora, folders[part])
    check_fit(folders, {part: str(origin) for part, origin in origins.items()}, params.model.max_tokens)


def _pretrain(
    scratch: Mapping[str, Mapping[str, Any]],
    vocab_size: int,
    folders: Mapping[str, Path],
    params: Params,
    project: Project,
) -> None:
    """Train a tokenizer on auxiliary, then build and pretrain each model of `scratch`: part -> its configuration."""
    auxiliary = read_role(project.records, "auxiliary")
    texts = (prompt_text(r.instruction, r.context) + r.response for r in auxiliary.itertuples())
    tokenizer = train_tokenizer(texts, vocab_size)
    records = auxiliary_text(auxiliary, params, tokenizer)
    for part, spec in scratch.items():
        model = build_from_scratch(dict(spec), tokenizer, derive(params.seed, f"init/{part}"))
        model = on_device(model, resolve_device())
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
