"""The models and records that the audits of one model of the pipeline are made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdleak.auditing.engine import TARGET, EngineSettings, make_encoders, make_subjects, references_needed
from kdleak.auditing.passes import ModelRunner, Subject
from kdleak.core.paths import BASELINE, TEACHER
from kdleak.data.records import read_role
from kdleak.data.sides import as_sides

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project


def compared(name: str) -> bool:
    """Whether the model `name` is a student of the teacher, to be compared with it and with the no-KD student."""
    return name not in (TEACHER, BASELINE)


def reference_folders(name: str, project: Project) -> dict[str, Path]:
    """The models that an attack on `name` may compare it with, by what they are to it."""
    base = project.base_teacher if name == TEACHER else project.base_student
    folders = {"pretrained": base, "external": project.base_external}
    if compared(name):
        folders |= {"teacher": project.model(TEACHER), "no_kd": project.model(BASELINE)}
    return folders


def audited_records(project: Project) -> pd.DataFrame:
    """Private and heldout, as members and nonmembers, in order of record id."""
    return as_sides(read_role(project.records, "private", "heldout"))


def population(project: Project, params: Params) -> pd.DataFrame:
    """Auxiliary records that no model was trained on: the first `base.reserve` by record id, a hash."""
    return read_role(project.records, "auxiliary").head(params.base.reserve)


def subjects(name: str, records: pd.DataFrame, params: Params, project: Project) -> dict[str, Subject]:
    """The model `name` as the target, and the references that the attacks of params.yaml read."""
    needed = references_needed(params.audit.attacks)
    folders = {TARGET: project.model(name)}
    folders |= {role: folder for role, folder in reference_folders(name, project).items() if role in needed}
    encoders = make_encoders(folders, params.model.max_prompt_tokens, params.model.max_tokens)
    return make_subjects(folders, encoders, records, population(project, params))[0]


def target(name: str, records: pd.DataFrame, params: Params, project: Project) -> Subject:
    """The model `name` by itself."""
    folders = {TARGET: project.model(name)}
    encoders = make_encoders(folders, params.model.max_prompt_tokens, params.model.max_tokens)
    return make_subjects(folders, encoders, records)[0][TARGET]


def runner(records: pd.DataFrame, params: Params, project: Project) -> ModelRunner:
    """Makes passes through the project's cache."""
    options = {"batch_tokens": params.audit.batch_tokens, "seed": params.seed, "cache": project.cache}
    return ModelRunner(records, **options, options=params.audit.model_dump())


def settings(params: Params, project: Project) -> EngineSettings:
    return EngineSettings(
        params.audit.attacks,
        params.seed,
        batch_tokens=params.audit.batch_tokens,
        options=params.audit.model_dump(),
        permutations=params.audit.permutations,
        ngram=params.checks.ngram,
        cache=project.cache,
    )
