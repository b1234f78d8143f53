"""The shadow stage: K teachers on balanced halves of the records, their students, and the scores of all of them.

A model that is finished is kept: results/shadow/<name>.parquet holds two numbers a record and model. A run that is
stopped loses the models that were being trained; more models keep the earlier ones.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak.core.files import read_json, write_json
from kdleak.core.fingerprint import SourceTree
from kdleak.core.paths import BASELINE, TEACHER
from kdleak.core.progress import progress
from kdleak.core.tasks import run_tasks
from kdleak.defend.choice import acting
from kdleak.models.model_files import content_hash
from kdleak.pipeline.passes import audited_records
from kdleak.pipeline.shadow_models import shadow_model
from kdleak.pipeline.validate import DEFENDED, corpus_content, fingerprint
from kdleak.shadow.halves import halves
from kdleak.shadow.report import shadow_report
from kdleak.shadow.store import STATISTICS, ShadowStore

if TYPE_CHECKING:
    from kdleak.config.schema import Params
    from kdleak.core.paths import Project

#: How far the scores of a model that is made again may lie from those that were kept, for the others to count as made
#: by the same training.
SAME = 1e-5


def make_shadows(params: Params, project: Project) -> None:
    """Train what `shadow` of params.yaml asks for and results/shadow lacks, and write its tables and report.json.

    Where it asks for none, what stands there stays: a run of hours is told of until another one replaces it.
    """
    records = audited_records(project)
    inside = halves(records["group_id"], params.shadow.models, params.seed)
    store = ShadowStore(project.shadow, records["record_id"])
    if params.shadow.models:
        make = partial(_make, inside, params, project.root.resolve())
        _discard_what_no_longer_holds(store, make, params, project)
        lacking = {k: _lacking(store, k, params.shadow.methods) for k in range(params.shadow.models)}
        tasks = [(k, tuple(methods)) for k, methods in lacking.items() if methods]
        with progress("shadow models", len(tasks)) as advance:
            for (number, _), scores in run_tasks(make, tasks, params.compute.workers):
                store.add(number, scores)
                advance()
    report = project.shadow_report
    if params.shadow.models:
        write_json(_report(store, inside, params), report, digits=6)
    elif not report.is_file():
        write_json({"models": 0}, report)


def _report(store: ShadowStore, inside: np.ndarray, params: Params) -> dict[str, Any]:
    """What the models of params.yaml say; those beyond shadow.models are kept, and left out."""
    models, methods = params.shadow.models, params.shadow.methods
    names = methods if set(methods) == {BASELINE} else [TEACHER, *methods]
    scores = {name: {each: store.values(name, each, models) for each in STATISTICS} for name in names}
    said = {"seed": params.seed, "family": params.model.family, "student": params.model.student}
    return said | shadow_report(scores, inside, params.seed)


def _make(inside: np.ndarray, params: Params, root: Path, number: int, methods: tuple[str, ...]) -> dict[str, dict]:
    return shadow_model(number, inside[number], methods, params, root)


def _lacking(store: ShadowStore, number: int, methods: Iterable[str]) -> list[str]:
    """The methods by which model `number` is still to be distilled."""
    return [name for name in methods if number not in store.numbers(name)]


def _discard_what_no_longer_holds(store: ShadowStore, make: partial, params: Params, project: Project) -> None:
    """Discard the models of other settings, data or bases, and those of other code that trains otherwise."""
    path, names = project.shadow / "origin.json", [TEACHER, *params.shadow.methods]
    now = {name: _origin(name, params, project) for name in names}
    before = read_json(path) if path.is_file() else {}
    stale = [name for name in names if store.numbers(name) and before.get(name, {}).get("of") != now[name]["of"]]
    if stale:
        print(f"shadow: other settings, data or bases: {', '.join(stale)} made anew", file=sys.stderr)
        store.discard(names if TEACHER in stale else stale)
    recoded = [name for name in names if store.numbers(name) and before[name]["code"] != now[name]["code"]]
    if recoded:
        _make_one_again(recoded, store, make, params)
    write_json(before | now, path)


def _make_one_again(recoded: list[str], store: ShadowStore, make: partial, params: Params) -> None:
    """Of models whose code has changed make one again; where its scores are not what was kept, discard the others."""
    number = min(set.intersection(*(store.numbers(name) for name in recoded)), default=0)
    methods = [name for name in recoded if name != TEACHER] or params.shadow.methods[:1]
    _, scores = next(run_tasks(make, [(number, tuple(methods))], 1))
    changed = [name for name in recoded if number not in store.numbers(name) or _differs(store, name, number, scores)]
    if changed:
        changed = [TEACHER, *params.shadow.methods] if TEACHER in changed else changed
        print(f"shadow: the code trains otherwise: {', '.join(changed)} made anew", file=sys.stderr)
        store.discard(changed)
        store.add(number, {name: scores[name] for name in changed if name in scores})


def _differs(store: ShadowStore, name: str, number: int, scores: dict[str, dict[str, np.ndarray]]) -> bool:
    kept = store.of(name, number)
    return any(np.abs(kept[each] - scores[name][each]).max() > SAME for each in STATISTICS)


def _origin(name: str, params: Params, project: Project) -> dict[str, str]:
    """of: digest of what determines the models of that name beside the code; code: of the code that trains them."""
    said = params.model_dump(mode="json", include={"seed", "model", "optimizer", "teacher", "defence"})
    files, models = [project.records, project.canaries], [project.base_teacher, project.base_student]
    if name != TEACHER:
        said |= params.model_dump(mode="json", include={"generation", "checks"})
        said["kd"] = params.kd.model_dump(mode="json", exclude={"method", "recipes"})
        said["recipe"], said["corpus"] = params.kd.recipes.get(name), corpus_content(params, project)
    if name not in (TEACHER, BASELINE):
        models.append(project.model(BASELINE))  # which a student may start from
    said["files"] = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    said["models"] = [content_hash(folder) for folder in models]
    source, stage = SourceTree(Path(__file__).parents[2]), "teacher" if name == TEACHER else "distill"
    defence = acting(params, *(() if name == BASELINE else DEFENDED[stage]))
    code = fingerprint(source, stage, None if name == TEACHER else name, defence)
    return {
        "of": hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest(),
        "code": hashlib.sha256(code.encode()).hexdigest(),
    }
