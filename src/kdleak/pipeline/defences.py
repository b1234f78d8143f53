"""The defences stage: every point of defence.grid trained and audited, and the frontier that they make.

A point that is finished is kept in results/defences/points/<point>/<student>/, with a digest of what it was made from:
a run that was stopped goes on, a longer grid keeps what the shorter one made, and what another setting, data
set or code makes otherwise is made anew. Teachers are kept while a student of theirs is lacking.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kdleak.core.errors import KdleakError
from kdleak.core.files import read_json, write_json
from kdleak.core.fingerprint import Entries, SourceTree
from kdleak.core.paths import BASELINE, TEACHER, Project
from kdleak.core.progress import progress
from kdleak.core.tasks import run_tasks
from kdleak.core.variants import Variant
from kdleak.defend.grid import UNDEFENDED, GridPoint, grid_of, students_of
from kdleak.distill.recipes import run_options, varied
from kdleak.models.model_files import content_hash
from kdleak.pipeline.defended import furnished, make_defended_student, make_teacher
from kdleak.pipeline.frontier import SHADOWS, write_frontier, write_nothing
from kdleak.pipeline.shadow import make_shadows
from kdleak.pipeline.validate import DEFENCES_PACKAGE, METHODS_PACKAGE, PLUMBING, corpus_content

if TYPE_CHECKING:
    from kdleak.config.schema import Params

#: A point and the method of a model of it: `teacher`, or a student's.
Task = tuple[GridPoint, Variant]
_ORIGIN = "origin.json"
#: Sections of params.yaml that decide something of every model; kd, seed and defence stand apart.
_SECTIONS = ("model", "optimizer", "teacher", "generation", "checks", "audit", "memorization")


def make_grid(params: Params, project: Project) -> None:
    """Train and audit what defence.grid asks for and results/defences lacks, and write frontier.json, .csv and .svg.

    Where it asks for nothing, what stands there stays: a run of an hour is told of until another one replaces it.
    """
    project.defended.mkdir(parents=True, exist_ok=True)
    points = grid_of(params)
    if not points:
        if project.frontier.is_file():
            read_json(project.frontier)  # a damaged one is not taken for a result
        else:
            write_nothing(project)
        return
    asked, refused = _students(points, params)
    origins = Origins(params, project)
    lacking = [task for task in asked if not _made(project.defended / place(*task), origins.of(*task))]
    teachers = dict.fromkeys((point.teacher, Variant(TEACHER)) for point, _ in lacking if not _own(point, params))
    untrained = [task for task in teachers if not _made(_home(project, *task), origins.of(*task))]
    _run(untrained, params, project, origins, "teachers")
    _run(lacking, params, project, origins, "students")
    _attack_by_shadows(points, params, project, origins)
    shutil.rmtree(project.root / ".kdleak" / "defences", ignore_errors=True)
    write_frontier(asked, refused, params, project)


def _students(points: Sequence[GridPoint], params: Params) -> tuple[list[Task], dict[str, str]]:
    """Every student of every point; and, by name, why a defence cannot be had with a method."""
    asked, refused = [], {}
    for point in points:
        for variant in students_of(params):
            try:
                point.defence.method(run_options(variant.method, varied(params, variant).kd))
                asked.append((point, variant))
            except KdleakError as error:
                refused[f"{point.name} {variant}"] = str(error)
    return asked, refused


def _run(tasks: Sequence[Task], params: Params, project: Project, origins: Origins, what: str) -> None:
    """Make the models of `tasks`, side by side, and write down beside each what it was made from."""
    make = partial(make_model, params, project.root.resolve())
    with progress(f"defences: {what}", len(tasks)) as advance:
        for (point, variant), _ in run_tasks(make, tasks, params.compute.workers):
            folder = _home(project, point, variant) if variant.is_teacher else project.defended / place(point, variant)
            write_json({"of": origins.of(point, variant)}, folder / _ORIGIN)
            advance()


def _attack_by_shadows(points: Sequence[GridPoint], params: Params, project: Project, origins: Origins) -> None:
    """Leave, of each point of the study's own seed, the report of attacks whose shadow teachers and students were
    trained with its defence: who makes them knows it. Nothing where defence.shadows is 0."""
    wanted = {"models": params.defence.shadows, "methods": params.defence.methods}
    for point in points if params.defence.shadows else ():
        shadows = Variant("shadows")
        folder, origin = project.defended / place(point, shadows), origins.of(point, shadows, **wanted)
        if point.seed != params.seed or _made(folder, origin):
            continue
        home = furnished(_home(project, point, shadows), project)
        settings = point.settings(params).model_copy(update={"shadow": params.shadow.model_copy(update=wanted)})
        make_shadows(settings, home)
        write_json(read_json(home.shadow_report), folder / SHADOWS)
        write_json({"of": origin}, folder / _ORIGIN)


def make_model(params: Params, root: Path, point: GridPoint, variant: Variant) -> None:
    """Train and audit one model of a point, a teacher or a student; runs in a process of its own."""
    project, settings = Project(root), point.settings(params)
    home = _home(project, point, variant)
    if variant.is_teacher:
        make_teacher(home, settings, root)
        return
    teacher = root if _own(point, params) else _home(project, point.teacher, Variant(TEACHER))
    make_defended_student(home, teacher, variant, settings, root, project.defended / place(point, variant))


def place(point: GridPoint, variant: Variant) -> Path:
    """Where the results of a student stand, below results/defences/points."""
    return Path(point.name, str(variant))


def _home(project: Project, point: GridPoint, variant: Variant) -> Path:
    """The folder in which a model is trained."""
    return project.root / ".kdleak" / "defences" / f"{point.name}-{variant}"


def _own(point: GridPoint, params: Params) -> bool:
    """Whether its students learn from the project's own teacher."""
    return point.teacher.defence.name == UNDEFENDED and point.seed == params.seed


def _made(folder: Path, origin: str) -> bool:
    """Whether `folder` holds what is asked for; what was made from something else is deleted."""
    if not folder.is_dir():
        return False
    path = folder / _ORIGIN
    if path.is_file() and read_json(path).get("of") == origin:
        return True
    if path.is_file():
        print(f"defences: {folder.parent.name}: other settings, data or code; made anew", file=sys.stderr)
        shutil.rmtree(folder)
    return False


class Origins:
    """What the models of a grid are made from, as digests."""

    def __init__(self, params: Params, project: Project):
        self._params, self._source = params, SourceTree(Path(__file__).parents[2])
        files = (project.records, project.canaries)
        models = (project.base_teacher, project.base_student, project.model(BASELINE), project.model(TEACHER))
        self._said = params.model_dump(mode="json", include=set(_SECTIONS))
        self._said["kd"] = params.kd.model_dump(mode="json", exclude={"method", "recipes"})
        self._said["files"] = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        self._said["models"] = [content_hash(folder) for folder in models]
        self._said["corpus"] = corpus_content(params, project)
        self._code: dict[tuple[str, str], str] = {}

    def of(self, point: GridPoint, variant: Variant, **wanted: object) -> str:
        """sha256 of settings, data, models and code of one model of a point, and of what else is `wanted` of it."""
        said = self._said | {"seed": point.seed, "defence": repr(point.defence), "student": str(variant)}
        said |= {"recipe": self._params.kd.recipes.get(variant.method), "code": self._of(point, variant)}
        return hashlib.sha256(json.dumps(said | wanted, sort_keys=True).encode()).hexdigest()

    def _of(self, point: GridPoint, variant: Variant) -> str:
        names = (point.defence.name, variant.method)
        if names not in self._code:
            entries = [Entries(DEFENCES_PACKAGE, "defence", names[0]), Entries(METHODS_PACKAGE, "method", names[1])]
            closure = self._source.closure("kdleak.pipeline.defended", PLUMBING, entries)
            self._code[names] = hashlib.sha256(self._source.fingerprint(closure).encode()).hexdigest()
        return self._code[names]
