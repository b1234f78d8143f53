"""MLflow: one parent run for each student (method, parameters, data), its stages nested in it.

The runs are made from result files, each once: `log_results` as the pipeline's last stages end, `sync` at any time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from kdleak.core.errors import KdleakError
from kdleak.core.files import read_csv
from kdleak.core.paths import BASELINE
from kdleak.distill.methods import METHODS
from kdleak.pipeline.provenance import Provenance, reading_results
from kdleak.tracking.content import Dataset, MethodRuns, StageRun, Step, method_runs, result_of, steps_of
from kdleak.tracking.store import open_store, what_is_wrong

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from kdleak.config.schema import Params
    from kdleak.core.paths import Project

_KEY, _CONTENT, _SUPERSEDED = "kdleak.key", "kdleak.content", "kdleak.superseded"
_REPORT, _MODEL = "kdleak.report", "kdleak.model"
_METRICS_A_CALL = 1000  # MLflow's limit


def log_results(project: Project, params: Params, fresh: Path) -> None:
    """`sync` at the end of the stage that has just written `fresh`, which DVC's lock does not hold yet.

    A store that cannot be reached is one warning on standard error: the result files are there, `sync` logs them later.
    """
    try:
        sync(project, params, fresh)
    except Exception as error:  # whatever is wrong with the tracking, the pipeline has its results and goes on
        print(f"kdleak: warning: {error}; 'kdleak sync' logs the results later", file=sys.stderr)


def sync(project: Project, params: Params, fresh: Path | None = None) -> int:
    """Log every current result of the project folder that the store does not have; returns the number of runs added.

    A result whose inputs have changed since (another technique's student after a new teacher, say) is left out.
    fresh: a result that counts as made with `params`.
    """
    provenance = Provenance(project)
    known = []
    with reading_results(project):
        for method in METHODS:
            steps, settings = _current_steps(project, params, method, provenance, fresh)
            if settings is not None:
                report = _report(project, params, provenance, fresh) if method == params.kd.method else None
                known.append(method_runs(project, settings, method, steps, report))
    try:
        with open_store(project) as opened:
            store = _Store(*opened)
            return sum(store.add(runs) for runs in known)
    except KdleakError:
        raise
    except Exception as error:
        raise KdleakError(what_is_wrong(project, error)) from None


def _current_steps(
    project: Project, params: Params, method: str, provenance: Provenance, fresh: Path | None
) -> tuple[list[Step], Params | None]:
    """The steps of a method whose results are there and not outdated, and the parameters that made its student."""
    steps, made_with = [], None
    for step in steps_of(method, with_teacher=method != BASELINE or params.kd.method == BASELINE):
        result = result_of(step, project)
        if not result.is_file() or (step[0] == "summary" and params.kd.method != method):
            continue
        settings = params if result == fresh else provenance.settings(result, params)
        if settings is None:
            continue
        steps.append(step)
        if step in (("distill", method), ("membership", method)):
            made_with = settings
    if made_with is None and method == params.kd.method and steps:
        made_with = provenance.settings(result_of(steps[-1], project), params)  # a teacher whose student is yet to come
    return steps, made_with


def _report(project: Project, params: Params, provenance: Provenance, fresh: Path | None) -> Path | None:
    """The study's page, where it is there and of the results that are."""
    page = project.report
    current = page.is_file() and (page == fresh or provenance.outdated(page, params) is None)
    return page if current else None


class _Store:
    """Runs of one experiment, written once each."""

    def __init__(self, client: MlflowClient, experiment: str, tags: Mapping[str, str]):
        self._client = client
        self._experiment = experiment
        self._tags = tags

    def add(self, runs: MethodRuns) -> int:
        """Write the parent and the nested runs that are missing; returns how many that were."""
        parent, created = self._parent(runs)
        for run in runs.stages:
            created += self._add_stage(run, f"{runs.key}/{run.stage}/{run.name}", parent.info.run_id)
        return created

    def _parent(self, runs: MethodRuns) -> tuple[Run, int]:
        existing = self._search({_KEY: runs.key})
        if existing:
            parent = existing[-1]
            self._tag(parent, {k: v for k, v in self._tags.items() if k not in parent.data.tags})
        else:
            method, seed = runs.params["method"], str(runs.params["seed"])
            known = {_KEY: runs.key, "method": method, "seed": seed, "mlflow.note.content": runs.note}
            parent = self._create(runs.title, known, runs.took.start)
        self._describe(parent, {k: v for k, v in runs.params.items() if k not in parent.data.params})
        if runs.student and runs.student.mechanism:
            self._tag(parent, {"mechanism": runs.student.mechanism})
        model = self._student(parent, runs)
        known = {} if model and model != parent.data.tags.get(_MODEL) else parent.data.metrics
        self._measure(parent, {k: v for k, v in runs.metrics.items() if known.get(k) != v}, model=model)
        if parent.inputs is None or not parent.inputs.dataset_inputs:
            self._read(parent, runs.datasets)
        if runs.report:
            digest = sha256(runs.report.read_bytes()).hexdigest()
            if parent.data.tags.get(_REPORT) != digest:
                self._client.log_artifact(parent.info.run_id, str(runs.report))
                self._tag(parent, {_REPORT: digest})
        self._end(parent, parent.info.start_time + _milliseconds(runs.took.end - runs.took.start))
        return parent, int(not existing)

    def _add_stage(self, run: StageRun, key: str, parent: str) -> int:
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
        known = {_KEY: key, "mlflow.parentRunId": parent, "stage": run.stage, "data.digest": run.dataset.digest}
        if run.checkpoint:
            known |= _checkpoint_tags(*run.checkpoint)
        if run.mechanism:
            known["mechanism"] = run.mechanism
        new = self._create(run.title, known, run.took.start)
        self._describe(new, run.params)
        self._measure(new, run.metrics, *run.history)
        self._read(new, {run.use: run.dataset})
        if run.roc:
            self._draw(new, run)
        self._tag(new, {_CONTENT: run.content})  # last: a run with this tag is whole
        self._end(new, _milliseconds(run.took.end))
        return 1

    def _search(self, tags: Mapping[str, str]) -> list[Run]:
        """Runs that carry the tags, the newest first."""
        condition = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        return list(self._client.search_runs([self._experiment], condition))

    def _create(self, title: str, tags: Mapping[str, str], start: float) -> Run:
        return self._client.create_run(self._experiment, _milliseconds(start), {**self._tags, **tags}, title)

    def _end(self, run: Run, end: int) -> None:
        """Mark as finished at `end` (ms), whenever it is logged. A run that has a later end keeps it."""
        if run.info.end_time is None or run.info.end_time < end:
            self._client.set_terminated(run.info.run_id, end_time=max(end, run.info.start_time))

    def _tag(self, run: Run, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            if run.data.tags.get(key) != value:
                self._client.set_tag(run.info.run_id, key, value)

    def _describe(self, run: Run, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        if params:
            self._client.log_batch(run.info.run_id, params=[Param(key, str(value)) for key, value in params.items()])

    def _measure(self, run: Run, *entries: Mapping[str, float], model: str | None = None) -> None:
        """Log the entries' figures, each at the entry's `step`, in as few calls as MLflow allows."""
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        metrics = [
            Metric(key, float(value), now, int(entry.get("step", 0)), model_id=model)
            for entry in entries
            for key, value in entry.items()
            if key != "step"
        ]
        for start in range(0, len(metrics), _METRICS_A_CALL):
            self._client.log_batch(run.info.run_id, metrics=metrics[start : start + _METRICS_A_CALL])

    def _read(self, run: Run, datasets: Mapping[str, Dataset]) -> None:
        """The identity of the records that were read, by their use (training, evaluation)."""
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.entities import Dataset as Logged
        from mlflow.entities import DatasetInput, InputTag

        inputs = []
        for use, dataset in datasets.items():
            source = CodeDatasetSource(tags={"source": dataset.source})
            fields = MetaDataset(source=source, name=dataset.name, digest=dataset.digest).to_dict()
            wanted = {k: fields.get(k) for k in ("name", "digest", "source_type", "source", "schema", "profile")}
            logged = Logged(**cast("dict[str, Any]", wanted))
            inputs.append(DatasetInput(logged, [InputTag("mlflow.data.context", use)]))
        if inputs:
            self._client.log_inputs(run.info.run_id, datasets=inputs)

    def _student(self, parent: Run, runs: MethodRuns) -> str | None:
        """Id of the student as a logged model that carries its leak, made where there is none: its path and its hash.

        The weights, which hold what they were trained on, stay where DVC keeps them.
        """
        from mlflow.entities import LoggedModelOutput

        if not (runs.student and runs.student.checkpoint and "auc" in runs.metrics):
            return None
        tags = _checkpoint_tags(*runs.student.checkpoint)
        if _MODEL in parent.data.tags and tags.items() <= parent.data.tags.items():
            return parent.data.tags[_MODEL]
        run, name = parent.info.run_id, f"{runs.params['method']}-{tags['checkpoint.sha256'][:8]}"
        model = self._client.create_logged_model(self._experiment, name, run, tags, model_type="student").model_id
        self._client.log_outputs(run, [LoggedModelOutput(model, step=0)])
        self._client.finalize_logged_model(model, "READY")
        self._tag(parent, {**tags, _MODEL: model})
        return model

    def _draw(self, run: Run, content: StageRun) -> None:
        from kdleak.render.roc import attack_roc_figure

        assert content.roc is not None
        figure = attack_roc_figure(read_csv(content.roc), f"Membership of private records: {content.name}")
        self._client.log_figure(run.info.run_id, figure, "roc.png")


def _checkpoint_tags(path: str, digest: str) -> dict[str, str]:
    return {"checkpoint.path": path, "checkpoint.sha256": digest}


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
