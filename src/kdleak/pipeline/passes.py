"""The models and records that the audits of one model of the pipeline are made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdleak.auditing.engine import TARGET, make_encoders, make_subjects, references_needed
from kdleak.auditing.passes import Subject
from kdleak.auditing.settings import EngineSettings
from kdleak.core.variants import Variant
from kdleak.data.records import read_role
from kdleak.data.sides import as_sides

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


def reference_folders(name: str | Variant, project: Project) -> dict[str, Path]:
    """The models that an attack on `name` may compare it with, by what they are to it."""
    variant = Variant.of(name)
    folders = {"pretrained": project.base(variant), "external": project.base_external}
    if variant.is_distilled:
        folders |= {"teacher": project.model(variant.teacher), "no_kd": project.model(variant.baseline)}
    return folders


def audited_records(project: Project) -> pd.DataFrame:
    """Private and heldout, as members and nonmembers, in order of record id."""
    return as_sides(read_role(project.records, "private", "heldout"))


def subjects(name: str | Variant, records: pd.DataFrame, params: Params, project: Project) -> dict[str, Subject]:
    """The model `name` as the target, and the references that the attacks of params.yaml read."""
    needed = references_needed(params.audit.attacks)
    folders = {TARGET: project.model(name)}
    folders |= {role: folder for role, folder in reference_folders(name, project).items() if role in needed}
    encoders = make_encoders(folders, params.model.max_prompt_tokens, params.model.max_tokens)
    return make_subjects(folders, encoders, records, read_role(project.records, "population"))[0]


def target(name: str | Variant, records: pd.DataFrame, params: Params, project: Project) -> Subject:
    """The model `name` by itself."""
    folders = {TARGET: project.model(name)}
    encoders = make_encoders(folders, params.model.max_prompt_tokens, params.model.max_tokens)
    return make_subjects(folders, encoders, records)[0][TARGET]


def settings(params: Params, project: Project) -> EngineSettings:
    return EngineSettings(
        params.audit.attacks,
        params.seed,
        batch_tokens=params.compute.batch_tokens,
        options=params.audit.model_dump(),
        permutations=params.audit.permutations,
        ngram=params.checks.ngram,
        cache=project.cache,
    )
