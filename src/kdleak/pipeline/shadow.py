"""The shadow stage: K teachers on balanced halves of the records, their students, and the scores of all of them.

A model that is finished is kept: results/shadow/<name>.parquet holds two numbers a record and model. A run that is
stopped loses the models that were being trained; more models keep the earlier ones.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdleak.core.files import read_json, write_json
from kdleak.core.fingerprint import Entries, SourceTree
from kdleak.core.paths import BASELINE, TEACHER
from kdleak.core.progress import progress
from kdleak.core.tasks import run_tasks
from kdleak.defend.choice import acting
from kdleak.defend.registry import Acts
from kdleak.models.model_files import content_hash
from kdleak.pipeline.passes import audited_records
from kdleak.pipeline.shadow_arms import is_arm, of_arm
from kdleak.pipeline.shadow_models import shadow_model
from kdleak.pipeline.validate import DEFENCES_PACKAGE, METHODS_PACKAGE, PLUMBING, corpus_content
from kdleak.shadow.halves import halves
from kdleak.shadow.report import settings_of, shadow_report
from kdleak.shadow.store import STATISTICS, ShadowStore

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project

#: How far the scores of a model that is made again may lie from those that were kept, for the others to count as made
#: by the same training.
SAME = 1e-5


def make_shadows(params: Params, project: Project) -> None:
    """Train what `shadow` of params.yaml asks for and results/shadow lacks, and write its tables and report.json.

    Where it asks for none, what stands there stays: a run of hours is told of until another one replaces it.
    """
    if not params.shadow.models:
        if project.shadow_report.is_file():
            read_json(project.shadow_report)  # a damaged one is not taken for a result
        else:
            write_json({"models": 0}, project.shadow_report)
        return
    records = audited_records(project)
    inside = halves(records["group_id"], params.shadow.models, params.seed)
    store = ShadowStore(project.shadow, records["record_id"])
    make = partial(_make, inside, params, project.root.resolve())
    origins = {name: _origin(name, records, params, project) for name in _names(params)}
    _discard_what_no_longer_holds(store, make, origins, params, project)
    asked = [*params.shadow.methods, *params.shadow.arms]
    lacking = {k: _lacking(store, k, asked) for k in range(params.shadow.models)}
    tasks = [(k, tuple(methods)) for k, methods in lacking.items() if methods]
    with progress("shadow models", len(tasks)) as advance:
        for (number, _), scores in run_tasks(make, tasks, params.compute.workers):
            store.add(number, scores)
            advance()
    shutil.rmtree(project.root / ".kdleak" / "shadow", ignore_errors=True)  # of models that nobody asks for any more
    write_json(_report(store, inside, params), project.shadow_report, digits=6)


def _names(params: Params) -> list[str]:
    """The models whose scores are kept; no teacher where nobody learns from one."""
    methods, arms = params.shadow.methods, params.shadow.arms
    return [*methods, *arms] if set(methods) == {BASELINE} else [TEACHER, *methods, *arms]


def _report(store: ShadowStore, inside: np.ndarray, params: Params) -> dict[str, Any]:
    """What the models of params.yaml say; those beyond shadow.models are kept, and left out."""
    models = params.shadow.models
    scores = {name: {each: store.values(name, each, models) for each in STATISTICS} for name in _names(params)}
    return settings_of(params) | shadow_report(scores, inside, params.shadow.arms)


def _make(inside: np.ndarray, params: Params, root: Path, number: int, methods: tuple[str, ...]) -> dict[str, dict]:
    return shadow_model(number, inside[number], methods, params, root)


def _lacking(store: ShadowStore, number: int, methods: Iterable[str]) -> list[str]:
    """The methods by which model `number` is still to be distilled, and the arms that it lacks."""
    return [name for name in methods if number not in store.numbers(name)]


def _discard_what_no_longer_holds(
    store: ShadowStore, make: partial, origins: dict[str, dict[str, str]], params: Params, project: Project
) -> None:
    """Discard the models of other settings, data or bases, and those of other code that trains otherwise."""
    path, names = project.shadow / "origin.json", list(origins)
    before = read_json(path) if path.is_file() else {}
    stale = [n for n in names if store.path(n).is_file() and before.get(n, {}).get("of") != origins[n]["of"]]
    if stale:
        print(f"shadow: other settings, data or bases: {', '.join(stale)} made anew", file=sys.stderr)
        _discard(store, stale)
    recoded = [name for name in names if store.numbers(name) and before[name]["code"] != origins[name]["code"]]
    if recoded:
        _make_one_again(recoded, store, make, params)
    write_json(before | origins, path)


def _discard(store: ShadowStore, names: list[str]) -> None:
    """These models; with the teachers, all students that ever learned from one."""
    store.discard([name for name in store.names if name != BASELINE or name in names] if TEACHER in names else names)


def _make_one_again(recoded: list[str], store: ShadowStore, make: partial, params: Params) -> None:
    """Of models whose code has changed make one again; where its scores are not what was kept, discard the others."""
    number = min(set.intersection(*(store.numbers(name) for name in recoded)), default=0)
    methods = [name for name in recoded if name != TEACHER]
    if TEACHER in recoded and all(is_arm(name) or name == BASELINE for name in methods):
        methods.append(next(name for name in params.shadow.methods if name != BASELINE))
    _, scores = next(run_tasks(make, [(number, tuple(methods))], 1))
    changed = [name for name in recoded if number not in store.numbers(name) or _differs(store, name, number, scores)]
    if changed:
        print(f"shadow: the code trains otherwise: {', '.join(changed)} made anew", file=sys.stderr)
        _discard(store, changed)
        store.add(number, {name: scores[name] for name in scores if not store.numbers(name)})


def _differs(store: ShadowStore, name: str, number: int, scores: dict[str, dict[str, np.ndarray]]) -> bool:
    kept = store.of(name, number)
    return any(np.abs(kept[each] - scores[name][each]).max() > SAME for each in STATISTICS)


def _origin(name: str, records: pd.DataFrame, params: Params, project: Project) -> dict[str, str]:
    """of: digest of what determines the models of that name beside the code; code: of the code that trains and scores
    them, a student's with its teacher's."""
    if is_arm(name):
        params = of_arm(name, params)
    said = params.model_dump(mode="json", include={"seed", "model", "optimizer", "teacher"})
    said["defence"] = params.defence.model_dump(
        mode="json", exclude={"grid", "seeds", "methods", "on_policy", "shadows"}
    )
    models = [project.base_teacher, project.base_student]
    if name != TEACHER and not is_arm(name):
        said |= params.model_dump(mode="json", include={"generation", "checks"})
        said["kd"] = params.kd.model_dump(mode="json", exclude={"method", "recipes"})
        said["recipe"], said["corpus"] = params.kd.recipes.get(name), corpus_content(params, project)
    if name not in (TEACHER, BASELINE) and not is_arm(name):
        models.append(project.model(BASELINE))  # which a student may start from
    said["files"] = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (project.records, project.canaries)]
    said["models"] = [content_hash(folder) for folder in models]
    said["halves"] = hashlib.sha256(halves(records["group_id"], 16, params.seed).tobytes()).hexdigest()
    entries = [
        Entries(DEFENCES_PACKAGE, "defence", acting(params, *Acts).name),
        Entries(METHODS_PACKAGE, "method", name),
    ]
    source = SourceTree(Path(__file__).parents[2])
    code = source.fingerprint(source.closure("kdleak.pipeline.shadow_models", PLUMBING, entries))
    return {
        "of": hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest(),
        "code": hashlib.sha256(code.encode()).hexdigest(),
    }
