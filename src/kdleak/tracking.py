"""MLflow: one parent run for each student (method, seed, parameters, data), its stages nested in it.

`log_stage` logs what a stage has just written, `sync` whatever is missing; both write the same runs, each once.
The store is mlflow.db in the repository's root, so that `mlflow ui` needs no flags there; MLFLOW_TRACKING_URI wins.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdleak.errors import KdleakError, brief
from kdleak.paths import BASELINE, TEACHER
from kdleak.provenance import Provenance
from kdleak.runs import (
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

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from kdleak.config import Params
    from kdleak.paths import Project

EXPERIMENT = "kdleak"
_KEY, _CONTENT, _SUPERSEDED = "kdleak.key", "kdleak.content", "kdleak.superseded"
_METRICS_A_CALL = 1000  # MLflow's limit
_DVC_TAGS = {"dvc.exp_name": "DVC_EXP_NAME", "dvc.baseline_rev": "DVC_EXP_BASELINE_REV"}


def log_stage(project: Project, params: Params, stage: str, name: str) -> None:
    """Log a stage that has just run, and what it was made from where that is missing.

    A store that cannot be reached is one warning on standard error: the result files are there, `sync` logs them later.
    """
    method = params.kd.method if name == TEACHER else name
    try:
        with _store(project) as store:
            runs = method_runs(project, params, method, steps_until(stage, name))
            store.add(runs, just_run=steps_of_stage(stage, name))
    except Exception as error:  # whatever is wrong with the tracking, the pipeline has its results and goes on
        told = f"{_unreachable(project, error)}; {_remedy(project, error)}; 'kdleak sync' logs this stage later"
        print(f"kdleak: warning: {told}", file=sys.stderr)


def prepare(project: Project) -> None:
    """Do now what takes long: import MLflow, open the store, make it where there is none. Failures are told later."""
    with suppress(Exception), _store(project):
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
        with _store(project) as store:
            return sum(store.add(runs) for runs in found)
    except Exception as error:
        raise KdleakError(f"{_unreachable(project, error)}; {_remedy(project, error)}") from None


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

        from kdleak.report.attack_roc import attack_roc_figure

        figure = attack_roc_figure(pd.read_csv(content.roc), f"Membership of private records: {content.name}")
        self._client.log_figure(run.info.run_id, figure, "roc.png")


@contextmanager
def _store(project: Project) -> Iterator[_Store]:
    """The experiment, made if need be. One process at a time: MLflow's own creation of tables and runs races."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    # Seven retries with growing pauses would hold the pipeline up for minutes where a server is down.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    from filelock import FileLock

    root = repository_root(project)
    lock = root / ".kdleak" / "mlflow.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        from mlflow import MlflowClient

        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # what it raises it would print as well
        uri = tracking_uri(project)
        _open_database(uri)
        client = MlflowClient(uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            identity = client.create_experiment(name, artifact_location=_artifact_location(uri))
        else:
            identity = experiment.experiment_id
            if experiment.lifecycle_stage == "deleted":
                client.restore_experiment(identity)
        yield _Store(client, identity, _origin(project))


def tracking_uri(project: Project) -> str:
    """MLFLOW_TRACKING_URI, or mlflow.db in the repository's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{repository_root(project) / 'mlflow.db'}"


def repository_root(project: Project) -> Path:
    """The folder that holds the store: a queued experiment runs in a copy elsewhere, and DVC_ROOT says of what."""
    if os.environ.get("DVC_ROOT"):
        return Path(os.environ["DVC_ROOT"])
    start = project.root.resolve()
    marked = (folder for folder in (start, *start.parents) if (folder / ".dvc").is_dir() or (folder / ".git").exists())
    return next(marked, start)


def _open_database(uri: str) -> None:
    """Raise sqlite3.DatabaseError at once where a local store is no database: MLflow would try for many seconds."""
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and path.is_file():
        with closing(sqlite3.connect(path, timeout=30)) as store:
            store.execute("select count(*) from sqlite_master").fetchone()


def _artifact_location(uri: str) -> str | None:
    """Beside a local database; a server decides for itself."""
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()


def _origin(project: Project) -> dict[str, str]:
    """Tags that say where a run comes from: DVC's experiment, revision and stage, git's commit and state."""
    tags = {tag: os.environ[variable] for tag, variable in _DVC_TAGS.items() if os.environ.get(variable)}
    commit = _git(project, "rev-parse", "HEAD")
    if commit:
        tags |= {"mlflow.source.git.commit": commit}
        tags |= {"git.dirty": str(bool(_git(project, "status", "--porcelain", "--untracked-files=no"))).lower()}
    return tags | {"mlflow.source.name": "kdleak"}


def _git(project: Project, *arguments: str) -> str:
    command: Sequence[str] = ("git", *arguments)
    try:
        return subprocess.run(command, cwd=project.root, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _unreachable(project: Project, error: Exception) -> str:
    """What a user needs to know, on one line and without a password."""
    uri = re.sub(r"//[^/@]*@", "//", tracking_uri(project))
    reason = re.sub(r"//[^/@\s]*@", "//", brief(_database_error(error) or error, at_most=10_000))[:160]
    return f"MLflow at {uri} did not take the run ({reason})"


def _database_error(error: BaseException | None) -> sqlite3.Error | None:
    """What the database itself said, without what SQLAlchemy and MLflow have wrapped it in."""
    while error is not None and not isinstance(error, sqlite3.Error):
        error = getattr(error, "orig", None) or error.__cause__
    return error


#: What SQLite says of a store -> what to do about it.
_REMEDIES = {
    "not a database|malformed|no such table|no such column": "move it away, a new one is made",
    "is full|disk I/O error": "free some space on the disk",
    "readonly|unable to open": "make it and its folder writable",
}


def _remedy(project: Project, error: Exception) -> str:
    if tracking_uri(project).startswith("sqlite:"):
        for said, remedy in _REMEDIES.items():
            if re.search(said, str(error)):
                return remedy
        return "see to it or change MLFLOW_TRACKING_URI"
    return "start it or change MLFLOW_TRACKING_URI"
