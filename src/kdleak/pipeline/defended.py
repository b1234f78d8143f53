"""One point of the frontier: a teacher and its students under a defence, trained and audited in a folder of their own.

The folder is a project whose parameters name the defence, so the stages' own functions do the work. What does not
depend on the defence (records, bases, the no-KD student and what was measured of them) is linked into it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from kdleak.attacks import ATTACKS
from kdleak.core.files import make_private, replacing_folder
from kdleak.core.paths import BASELINE, TEACHER, Project
from kdleak.core.variants import CONTROL, Variant
from kdleak.distill.recipes import varied
from kdleak.pipeline.distill import make_student
from kdleak.pipeline.measure import measure_run
from kdleak.pipeline.membership import judge_membership
from kdleak.pipeline.memorization import judge_memorization
from kdleak.pipeline.passes import audited_records, subject_of, write_passes
from kdleak.pipeline.teacher import fine_tune_teacher
from kdleak.pipeline.text import write_training_text
from kdleak.pipeline.utility import judge_utility

if TYPE_CHECKING:
    from kdleak.config.schema import Params

#: What is kept of a model: figures, and of each record ids and numbers.
KEPT = ("training.json", "membership.json", "memorization.json", "utility.json",
        "scores.parquet", "memorization.parquet", "canaries.parquet")  # fmt: skip

#: training.json of the student's teacher, which says what its training spent, as it stands beside those.
TEACHERS_TRAINING = "teacher.json"


def make_teacher(place: Path, params: Params, root: Path) -> None:
    """Fine-tune and audit the teacher of `params` in the project `place`; an interrupted training goes on.

    root: the project whose records and bases it is of.
    """
    project = furnished(place, Project(root))
    variant = Variant(TEACHER)
    fine_tune_teacher(params, project)
    audit(variant, params, project)


def make_defended_student(
    place: Path, teacher: Path, variant: Variant, params: Params, root: Path, results: Path
) -> None:
    """Distil the student `variant` of the teacher in the project `teacher`, audit it, and leave its files in `results`.

    The defence of `params` acts on what the teacher releases, on the public records or on the student. A run that was
    stopped goes on in `place`, which is deleted at the end.
    """
    project = furnished(place, Project(root))
    source = Project(teacher)
    _link(project.model(TEACHER), source.model(TEACHER))
    _link(project.passes(TEACHER).parent, source.passes(TEACHER).parent)
    _link(project.results(TEACHER), source.results(TEACHER))
    params = varied(params, variant)
    write_training_text(variant.method, params, project)
    make_student(variant, params, project)
    audit(variant, params, project)
    with replacing_folder(results) as fresh:
        for name in KEPT:
            shutil.copy2(project.results(variant) / name, fresh / name)
        shutil.copy2(source.training(TEACHER), fresh / TEACHERS_TRAINING)
    shutil.rmtree(place)


def furnished(place: Path, origin: Project) -> Project:
    """A project in the folder `place` with the records, bases and no-KD student of `origin`, private to its owner."""
    project = Project(place)
    for folder in (place.parent, place):
        make_private(folder)
    shared = [
        (each.records, each.canaries, each.families, each.base_teacher, each.base_student, each.base_external,
         each.model(BASELINE), each.passes(BASELINE).parent, each.passes(CONTROL).parent, each.results(BASELINE),
         *(each.base_passes(part).parent for part in ("teacher", "student", "external")))
        for each in (project, origin)
    ]  # fmt: skip
    for link, target in zip(*shared, strict=True):
        _link(link, target)
    return project


def _link(link: Path, target: Path) -> None:
    if target.exists() and not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)  # one that leads nowhere
        link.symlink_to(target.resolve())


def audit(variant: Variant, params: Params, project: Project) -> None:
    """Membership without the attacks that need passes of their own, memorization and utility."""
    attacks = [attack for attack in params.audit.attacks if not ATTACKS[attack].needs.passes]
    params = params.model_copy(update={"audit": params.audit.model_copy(update={"attacks": attacks})})
    records = audited_records(project)
    subject = subject_of(project.model(variant), records, params, project)
    passes = measure_run(variant, (), params, project)
    if not variant.is_distilled:
        write_passes(passes, project.passes(variant))
    judge_membership(variant, passes, records, params, project)
    judge_memorization(variant, passes, records, subject, params, project)
    judge_utility(variant, passes, subject.encoder.tokenizer, project)
