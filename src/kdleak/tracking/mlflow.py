"""MLflow: one parent run for each student (method, seed, parameters, data), its stages nested in it.

`log_stage` logs what a stage has just written, `sync` whatever is missing; both write the same runs, each once.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kdleak.core.errors import KdleakError
from kdleak.core.paths import BASELINE, TEACHER
from kdleak.pipeline.provenance import Provenance
from kdleak.tracking.content import (
    AUDITS,
    MethodRuns,
    StageRun,
    Step,
    method_runs,
    result_of,
    steps_of,
    steps_of_stage,
    steps_until,
)
from kdleak.tracking.store import open_store, what_is_wrong

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project

_KEY, _CONTENT, _SUPERSEDED = "kdleak.key", "kdleak.content", "kdleak.superseded"
_METRICS_A_CALL = 1000  # MLflow's limit


def log_stage(project: Project, params: Params, stage: str, name: str) -> None:
    """Log a stage that has just run, and what it was made from where that is missing.

    A store that cannot be reached is one warning on standard error: the result files are there, `sync` logs them later.
    """
    method = params.kd.method if name == TEACHER else name
    try:
        with open_store(project) as opened:
            runs = method_runs(project, params, method, steps_until(stage, name))
            _Store(*opened).add(runs, just_run=steps_of_stage(stage, name))
    except Exception as error:  # whatever is wrong with the tracking, the pipeline has its results and goes on
        told = f"{what_is_wrong(project, error)}; 'kdleak sync' logs this stage later"
        print(f"kdleak: warning: {told}", file=sys.stderr)


def prepare(project: Project) -> None:
    """Do now what takes long: import MLflow, open the store, make it where there is none. Failures are told later."""
    with suppress(Exception), open_store(project):
        pass


def sync(project: Project, params: Params) -> int:
    """Log every current result of the project folder that the store does not have; returns the number of runs added.

    A result whose inputs have changed since (another technique's student after a new teacher, say) is left out.
    """
    provenance = Provenance(project)
    found = []
    for method in params.kd.recipes:
        steps, settings = _current_steps(project, params, method, provenance)
        if settings is not None:
            found.append(method_runs(project, settings, method, steps))
    try:
        with open_store(project) as opened:
            store = _Store(*opened)
            return sum(store.add(runs) for runs in found)
    except Exception as error:
        raise KdleakError(what_is_wrong(project, error)) from None


def _current_steps(
    project: Project, params: Params, method: str, provenance: Provenance
) -> tuple[list[Step], Params | None]:
    """The steps of a method whose results are there and not outdated, and the parameters that made its student."""
    steps, made_with = [], None
    for step in steps_of(method, with_teacher=method != BASELINE or params.kd.method == BASELINE):
        result = result_of(step, project)
        if not result.is_file() or (step[0] == "summary" and params.kd.method != method):
            continue
        settings = provenance.settings(result, params)
        if settings is None:
            continue
        steps.append(step)
        if step in (("distill", method), ("membership", method)):
            made_with = settings
    if made_with is None and method == params.kd.method and steps:
        made_with = provenance.settings(result_of(steps[-1], project), params)  # a teacher whose student is yet to come
    return steps, made_with


class _Store:
    """Runs of one experiment, written once each."""

    def __init__(self, client: MlflowClient, experiment: str, tags: Mapping[str, str]):
        self._client = client
        self._experiment = experiment
        self._tags = tags

    def add(self, runs: MethodRuns, just_run: Sequence[Step] = ()) -> int:
        """Write the parent and the nested runs that are missing; returns how many that were.

        `just_run` are the steps that the current DVC stage is, if any.
        """
        parent, created = self._parent(runs)
        for run in runs.stages:
            is_current = (run.stage, run.name) in just_run and "DVC_STAGE" in os.environ
            tags = {"dvc.stage": os.environ["DVC_STAGE"]} if is_current else {}
            created += self._add_stage(run, f"{runs.key}/{run.stage}/{run.name}", parent, tags)
        return created

    def _parent(self, runs: MethodRuns) -> tuple[str, int]:
        found = self._search({_KEY: runs.key})
        if found:
            parent = found[-1]
            self._tag(parent, {k: v for k, v in self._tags.items() if k not in parent.data.tags})
        else:
            parent = self._create(runs.title, {_KEY: runs.key, "method": runs.method, "seed": str(runs.seed)})
        self._describe(parent, {k: v for k, v in runs.params.items() if k not in parent.data.params})
        self._measure(parent, {k: v for k, v in runs.metrics.items() if parent.data.metrics.get(k) != v})
        self._client.set_terminated(parent.info.run_id)
        return parent.info.run_id, int(not found)

    def _add_stage(self, run: StageRun, key: str, parent: str, tags: Mapping[str, str]) -> int:
        earlier = self._search({_KEY: key})
        for old in earlier:
            if _CONTENT not in old.data.tags:  # its logging was interrupted
                self._client.delete_run(old.info.run_id)
            elif old.data.tags[_CONTENT] != run.content:
                self._tag(old, {_SUPERSEDED: "true"})
            elif _SUPERSEDED in old.data.tags:  # it is the current one again
                self._tag(old, {_SUPERSEDED: "false"})
        if any(old.data.tags.get(_CONTENT) == run.content for old in earlier):
            return 0
        checkpoint = run.checkpoint and {"checkpoint.path": run.checkpoint[0], "checkpoint.sha256": run.checkpoint[1]}
        known = {_KEY: key, "mlflow.parentRunId": parent, "stage": run.stage, "data.digest": run.dataset.digest}
        new = self._create(run.title, {**known, **(checkpoint or {}), **tags})
        self._describe(new, run.params)
        self._measure(new, run.metrics, *run.history)
        self._read(new, run)
        if run.roc:
            self._draw(new, run)
        self._tag(new, {_CONTENT: run.content})  # last: a run with this tag is whole
        self._client.set_terminated(new.info.run_id)
        return 1

    def _search(self, tags: Mapping[str, str]) -> list[Run]:
        """Runs that carry the tags, the newest first."""
        condition = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        return list(self._client.search_runs([self._experiment], condition))

    def _create(self, title: str, tags: Mapping[str, str]) -> Run:
        return self._client.create_run(self._experiment, run_name=title, tags={**self._tags, **tags})

    def _tag(self, run: Run, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            if run.data.tags.get(key) != value:
                self._client.set_tag(run.info.run_id, key, value)

    def _describe(self, run: Run, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        if params:
            self._client.log_batch(run.info.run_id, params=[Param(key, str(value)) for key, value in params.items()])

    def _measure(self, run: Run, *entries: Mapping[str, float]) -> None:
        """Log the entries' figures, each at the entry's `step`, in as few calls as MLflow allows."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(key, float(value), now, int(entry.get("step", 0)))
            for entry in entries
            for key, value in entry.items()
            if key != "step"
        ]
        for start in range(0, len(metrics), _METRICS_A_CALL):
            self._client.log_batch(run.info.run_id, metrics=metrics[start : start + _METRICS_A_CALL])

    def _read(self, run: Run, content: StageRun) -> None:
        """The identity of the records that the stage read."""
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.entities import Dataset, DatasetInput, InputTag

        given = content.dataset
        source = CodeDatasetSource(tags={"source": given.source})
        fields = MetaDataset(source=source, name=given.name, digest=given.digest).to_dict()
        wanted = {k: fields.get(k) for k in ("name", "digest", "source_type", "source", "schema", "profile")}
        use = "evaluation" if content.stage in AUDITS else "training"
        self._client.log_inputs(
            run.info.run_id, datasets=[DatasetInput(Dataset(**wanted), [InputTag("mlflow.data.context", use)])]
        )

    def _draw(self, run: Run, content: StageRun) -> None:
        import pandas as pd

        from kdleak.render.roc import attack_roc_figure

        figure = attack_roc_figure(pd.read_csv(content.roc), f"Membership of private records: {content.name}")
        self._client.log_figure(run.info.run_id, figure, "roc.png")
