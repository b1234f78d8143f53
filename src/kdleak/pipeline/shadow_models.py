"""One shadow model: a teacher on its half of the records, its students, and what each of them says of every record."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kdleak.attacks.likelihood import mean_log_prob
from kdleak.attacks.recent import up_share
from kdleak.attacks.reference import token_shift
from kdleak.auditing.passes import ModelRunner
from kdleak.auditing.settings import EngineSettings
from kdleak.core.files import make_private, read_parquet, write_parquet
from kdleak.core.paths import BASELINE, TEACHER, Project
from kdleak.core.seeds import derive
from kdleak.core.variants import Variant
from kdleak.pipeline.distill import make_student
from kdleak.pipeline.passes import audited_records, subject_of
from kdleak.pipeline.shadow_arms import is_arm, of_arm
from kdleak.pipeline.teacher import fine_tune_teacher
from kdleak.pipeline.text import write_training_text

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.config.schema import Params
    from kdleak.inference.token_statistics import TokenStatistics


def shadow_model(
    number: int, inside: np.ndarray, methods: Sequence[str], params: Params, root: Path
) -> dict[str, dict]:
    """Train teacher `number` on the records that are `inside` and distil it by each of `methods`; of those that name a
    control arm, train the arm's teacher.

    Returns model -> statistic -> (n,) float32, the records in the order of `audited_records`. inside: (n,) bool. The
    recipe is that of params.yaml, with a seed of its own; an interrupted training goes on where it was. `sft` is
    trained without the teacher.
    """
    origin, place = Project(root), root / ".kdleak" / "shadow" / str(number)
    settings = params.model_copy(update={"seed": derive(params.seed, f"shadow/{number}")})
    project = _furnish(place, origin, inside)
    scores = {}
    students = [name for name in methods if not is_arm(name)]
    for name in (name for name in methods if is_arm(name)):
        fine_tune_teacher(of_arm(name, settings), project)
        scores[name] = _scores(project.model(TEACHER), TEACHER, params, origin)
    if set(students) - {BASELINE}:
        fine_tune_teacher(settings, project)
        scores[TEACHER] = _scores(project.model(TEACHER), TEACHER, params, origin)
    for method in sorted(students, key=lambda name: name == BASELINE):  # the others start from the project's baseline
        if method != BASELINE:
            write_training_text(method, settings, project)
        else:
            project.model(BASELINE).unlink(missing_ok=True)  # the link
        make_student(method, settings, project)
        scores[method] = _scores(project.model(method), method, params, origin)
    shutil.rmtree(place)
    return scores


def _furnish(place: Path, origin: Project, inside: np.ndarray) -> Project:
    """A project in the folder `place` whose private records are those `inside`; the rest is that of `origin`."""
    project = Project(place)
    records, audited = read_parquet(origin.records), audited_records(origin)
    roles = dict(zip(audited["record_id"], np.where(inside, "private", "heldout"), strict=True))
    for folder in (place.parent, place):
        make_private(folder)  # private records and models, until the model is done
    records["role"] = [roles.get(name, role) for name, role in zip(records["record_id"], records["role"], strict=True)]
    write_parquet(records, project.records)
    links = (Project.canaries, Project.base_teacher, Project.base_student, Project.base_external, Project.families)
    targets = [(link.fget(project), link.fget(origin)) for link in links]  # type: ignore[misc]
    for link, target in [*targets, (project.model(BASELINE), origin.model(BASELINE))]:
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_dir() and not link.is_symlink():
            shutil.rmtree(link)
        link.unlink(missing_ok=True)
        if target.exists():
            link.symlink_to(target.resolve())
    return project


def _scores(folder: Path, name: str, params: Params, origin: Project) -> dict[str, np.ndarray]:
    records = audited_records(origin)
    target, base = _statistics(folder, records, params, origin), origin.base(Variant.of(name))
    reference = _statistics(base, records, params, origin, origin.cache)
    return {
        "loss": mean_log_prob(target).astype(np.float32),
        "ez": up_share(token_shift(target, reference), target.missed, target.offsets).astype(np.float32),
    }


def _statistics(
    folder: Path, records: pd.DataFrame, params: Params, origin: Project, cache: Path | None = None
) -> TokenStatistics:
    subject = subject_of(folder, records, params, origin)
    settings = EngineSettings((), params.seed, batch_tokens=params.compute.batch_tokens, cache=cache)
    return ModelRunner(records, settings).statistics(subject, subject.records)
