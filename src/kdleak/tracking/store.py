"""Where MLflow's store is, opening it, and what to tell a user where that fails.

It is mlflow.db in the repository's root, so that `mlflow ui` needs no flags there; MLFLOW_TRACKING_URI wins.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kdleak.core.errors import brief

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from kdleak.core.paths import Project

EXPERIMENT = "kdleak"
#: Columns of the table of students that the experiment's description links to, in the UI's names.
_COLUMNS = ("auc", "auc_low", "auc_high", "tpr_at_1pct_fpr", "perplexity", "rouge_l")
_DVC_TAGS = {"dvc.exp_name": "DVC_EXP_NAME", "dvc.baseline_rev": "DVC_EXP_BASELINE_REV"}


@contextmanager
def open_store(project: Project) -> Iterator[tuple[MlflowClient, str, dict[str, str]]]:
    """A client, the id of its experiment (made if need be) and the tags of every run that is written from here.

    One process at a time: MLflow's own creation of tables and runs races.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    # Seven retries with growing pauses would hold the pipeline up for minutes where a server is down.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    from filelock import FileLock

    root = repository_root(project)
    lock = root / ".kdleak" / "mlflow.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        from mlflow import MlflowClient

        for name in ("mlflow.store.db.utils", "mlflow.utils.databricks_utils", "urllib3"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what they raise they would print as well, secrets too
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
        for tag, value in _experiment_tags(identity).items():
            if experiment is None or tag not in experiment.tags:
                client.set_experiment_tag(identity, tag, value)
        yield client, identity, _origin(project)


def _experiment_tags(identity: str) -> dict[str, str]:
    """What the UI shows of the experiment: that it holds training runs, a description, and a view of the students.

    The UI shows no metric until it is told which, and opens on traces until its user has chosen otherwise; a link to a
    shared view says both.
    """
    view = {
        "selectedColumns": ["attributes.`Duration`", *(f"metrics.`{column}`" for column in _COLUMNS)],
        "orderByKey": "metrics.`auc`",
        "orderByAsc": False,
    }
    note = (
        f"[The students, by what they leak]({_students(identity)}). One run for each distilled student: what it gives "
        "away of its teacher's private training data (`auc`, 0.5 is no leak) and what it is good for (`perplexity`, "
        "`rouge_l`). Its stages are nested in it."
    )
    return {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.note.content": note,
        "mlflow.sharedViewState.students": json.dumps(view),
    }


def _students(identity: str) -> str:
    """The table of students in the UI, in its training view, which no tag of an experiment chooses."""
    return f"#/experiments/{identity}/runs?workflowType=machine_learning&viewStateShareKey=students"


def students_page(project: Project) -> str:
    """Where the UI shows the table of students of a store that has been opened before."""
    from mlflow import MlflowClient

    uri = tracking_uri(project)
    experiment = MlflowClient(uri).get_experiment_by_name(os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT))
    server = _without_secrets(uri).rstrip("/") if uri.startswith("http") else "http://127.0.0.1:5000"
    return f"{server}/{_students(experiment.experiment_id)}" if experiment else server


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
    path = Path(uri.removeprefix("sqlite:///").removeprefix("file://"))
    if path.is_dir() and "://" in uri:
        raise sqlite3.DatabaseError(f"unable to open {path}: it is a folder")
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


def what_is_wrong(project: Project, error: Exception) -> str:
    """What a user needs to know of a store that took no run, and what to do: one line, without a password."""
    uri = tracking_uri(project)
    said = brief(_database_error(error) or error, at_most=10_000).replace(uri, _without_secrets(uri))
    reason = _without_secrets(said)[:160]
    return f"MLflow at {_without_secrets(uri)} did not take the run ({reason}); {_remedy(project, error)}"


def _without_secrets(text: str) -> str:
    """`text` without the user and password of an address (which may hold slashes), its query, and the environment's
    credentials."""
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        if os.environ.get(name):
            text = text.replace(os.environ[name], "...")
    return re.sub(r"[?&#;]\S*=\S*", "", re.sub(r"//\S*@", "//", text))


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
