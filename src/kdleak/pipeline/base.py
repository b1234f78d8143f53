"""The base stage: a tokenizer trained on auxiliary; teacher, student and external reference pretrained on it.

A family of the hub, of a local folder or of a package brings its bases with it; they are fetched and stored in the same
places. A pruned student is made of its teacher's base, and healed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kdleak.core.files import write_json
from kdleak.core.seeds import derive
from kdleak.data.records import read_role
from kdleak.data.templates import prompt_text
from kdleak.models.checkpoints import copy_checkpoint, load_model, load_tokenizer, on_device, save_checkpoint
from kdleak.models.compatibility import check_fit
from kdleak.models.device import resolve_device
from kdleak.models.families import build_from_scratch, load_family
from kdleak.models.hub import model_folder
from kdleak.models.lora import write_lora
from kdleak.models.package import package_folder
from kdleak.models.prune import pruned
from kdleak.models.tokenizer import train_tokenizer
from kdleak.models.vocabulary import share_vocabulary
from kdleak.training.finetune import auxiliary_text, cross_entropy
from kdleak.training.run import run_training

if TYPE_CHECKING:
    from pathlib import Path

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project
    from kdleak.models.families import Origin, Prune


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
        if (source := _ready_made(origin, project)) is not None:
            copy_checkpoint(source, folders[part])
            write_json({"history": [], "records": 0}, project.base_training(part))
    scratch = {part: origin.scratch for part, origin in origins.items() if origin.scratch is not None}
    if scratch:
        assert family.tokenizer is not None  # a family with a scratch part has one
        _pretrain(scratch, family.tokenizer.vocab_size, folders, params, project)
    if origins["student"].prune is not None:
        _prune(origins["student"].prune, params, project)
    share_vocabulary(folders["teacher"], folders["student"])
    for part in ("teacher", "student"):
        write_lora(family.lora, folders[part])
    names = {part: str(origin) for part, origin in origins.items()}
    check_fit(folders, names, params.model.max_tokens)


def _ready_made(origin: Origin, project: Project) -> Path | None:
    """The folder of a model that is not made here; None for one that is."""
    if origin.hub is not None:
        converted = project.converted_from(f"{origin.hub}@{origin.revision}")
        return converted if converted.is_dir() else model_folder(origin.hub, origin.revision)
    return None if origin.package is None else package_folder(origin.package, project.converted)


def _prune(prune: Prune, params: Params, project: Project) -> None:
    """Write models/base/student: the blocks of the teacher's base that are kept, healed."""
    tokenizer = load_tokenizer(project.base_teacher)
    model = on_device(pruned(load_model(project.base_teacher), prune.keep), resolve_device())
    history, records = [], []
    if prune.heal is not None:
        records = auxiliary_text(read_role(project.records, prune.heal.role), params, tokenizer)
        options = {"name": "base-student", "state": project.resume("base-student")}
        history = run_training(model, records, cross_entropy, prune.heal, params, **options)
    save_checkpoint(model, tokenizer, project.base_student)
    write_json({"history": history, "records": len(records)}, project.base_training("student"))


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
