"""What MLflow is told of a method, read from its result files: the files are the truth, whenever they are logged.

A method's runs are steps `(stage, name)`, nested in one parent run: a command of that name, or one of the audits that
`kdleak judge` makes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdleak.core.errors import KdleakError
from kdleak.core.files import read_csv, read_json, read_parquet
from kdleak.core.paths import BASELINE, TEACHER
from kdleak.core.times import Span, span_of
from kdleak.data.sources import find_source
from kdleak.defend.record import defence_of
from kdleak.distill.recipes import recipe
from kdleak.memorization.report import headline_figures
from kdleak.models.model_files import content_hash
from kdleak.render.mechanism import mechanism_absent
from kdleak.tracking.certified import epsilon_metrics
from kdleak.tracking.metrics import (
    attack_metrics,
    block_metrics,
    defence_metrics,
    flattened,
    headline_metrics,
    known_figures,
    realised_metrics,
)

if TYPE_CHECKING:
    from kdleak.config.schema import Params
    from kdleak.core.paths import Project

Step = tuple[str, str]
#: The audits of a model, in the order in which they run.
AUDITS = ("membership", "blocks", "memorization", "utility")
#: Which roles' records a step reads.
_ROLES = {"teacher": ("private",), "distill": ("public",)}
_ROLES |= dict.fromkeys(AUDITS, ("private", "heldout")) | {"utility": ("heldout",)}
#: A result that is so many seconds younger than its command's end was written by another one.
_SLACK = 60.0
_UNKNOWN = Span(0.0, 0.0)


@dataclass(frozen=True)
class Dataset:
    """The records that a run read: where they come from, their roles, a hash of their ids."""

    name: str
    source: str
    digest: str


@dataclass(frozen=True)
class StageRun:
    """One nested run.

    history: metrics over steps, each with a `step`. checkpoint: (path, sha256). roc: a roc.csv. took: when it ran.
    mechanism: of a student, "ran", or why it is none of its technique.
    """

    stage: str
    name: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    dataset: Dataset
    history: Sequence[Mapping[str, float]] = ()
    checkpoint: tuple[str, str] | None = None
    mechanism: str = ""
    roc: Path | None = field(default=None, compare=False)
    took: Span = _UNKNOWN

    @property
    def title(self) -> str:
        return self.name if self.stage == self.name else f"{self.stage} {self.name}"

    @property
    def use(self) -> str:
        """What the records were read for, in MLflow's words."""
        return "evaluation" if self.stage in AUDITS else "training"

    @cached_property
    def content(self) -> str:
        """sha256 of all that is logged; equal content is logged once."""
        logged = {key: value for key, value in asdict(self).items() if key not in ("roc", "took")}
        return _digest(logged, self.roc.read_bytes() if self.roc else b"")


@dataclass(frozen=True)
class MethodRuns:
    """A parent run and what nests in it.

    title: tells a smoke run from a full one. key: hash of all that determines the method's student.
    note: a description in Markdown. report: the study's page, where this is its headline method and it is current.
    """

    title: str
    key: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    stages: Sequence[StageRun]
    note: str
    report: Path | None = None

    @property
    def datasets(self) -> dict[str, Dataset]:
        """What the student's own stages read, by use (training, evaluation)."""
        own = (run for run in self.stages if run.name == self.params["method"])
        return {run.use: run.dataset for run in own if run.stage in ("distill", "membership")}

    @property
    def student(self) -> StageRun | None:
        """The run that made the student."""
        return next((run for run in self.stages if run.stage == "distill"), None)

    @property
    def took(self) -> Span:
        """The time spent in its stages, from the first one's start on: pauses between them are left out."""
        start = min((run.took.start for run in self.stages), default=0.0)
        return Span(start, start + sum(run.took.end - run.took.start for run in self.stages))


def steps_of(method: str, with_teacher: bool = True) -> list[Step]:
    """All steps of a method, in order; the last one only adds figures to the parent run."""
    student = [("distill", method), *((audit, method) for audit in AUDITS), ("summary", method)]
    return [("teacher", TEACHER), *((audit, TEACHER) for audit in AUDITS), *student] if with_teacher else student


def result_of(step: Step, project: Project) -> Path:
    """The file that shows a step has run."""
    stage, name = step
    return {
        "teacher": project.training(name),
        "distill": project.training(name),
        "membership": project.membership(name),
        "blocks": project.blocks(name),
        "memorization": project.memorization(name),
        "utility": project.utility(name),
        "summary": project.metrics,
    }[stage]


def _took(step: Step, project: Project) -> Span:
    """When the step that wrote a result ran. Where no note of it is left (its result came from a cache or another
    folder), it began as it ended: when the file was written."""
    stage, name = step
    end = result_of(step, project).stat().st_mtime
    span = span_of(project, "judge" if stage in AUDITS else stage, name)
    if span is None or not span.start <= end <= span.end + _SLACK:
        return Span(end, end)
    earlier = AUDITS[: AUDITS.index(stage)] if stage in AUDITS else ()
    results = (result_of((audit, name), project) for audit in earlier)
    ended = (result.stat().st_mtime for result in results if result.is_file())
    return Span(max([span.start, *(other for other in ended if other <= end)]), end)


def method_runs(
    project: Project, params: Params, method: str, steps: Sequence[Step], report: Path | None = None
) -> MethodRuns:
    """The runs of `steps`, all made with `params`; their result files must be there."""
    ids = _ids_by_role(project)
    settings = _settings(params, method) | _defence(method, project)
    nested = [_stage_run(step, project, params, settings, ids) for step in steps if step[0] != "summary"]
    metrics: dict[str, float] = {}
    for run in sorted(nested, key=lambda run: run.stage != "membership"):  # the UI compares by the first metric
        if run.name == method:
            metrics |= headline_metrics(run.stage, run.metrics, params.report.headline)
    if ("summary", method) in steps:
        metrics |= _comparison(project)
    metrics |= epsilon_metrics(method, params, project)
    flat = {"method": method, "seed": params.seed, **flattened(settings)}
    key = _digest({"params": flat, "data": _digest(ids)})
    model = params.model
    title = f"{method}, {model.family} {model.student}, {params.data.sizes.private} members, seed {params.seed}"
    return MethodRuns(title, key, flat, metrics, nested, _note(method, params), report)


def _note(method: str, params: Params) -> str:
    """What a reader of the run's page needs to know of its figures."""
    maker = "fine-tuned on public records alone" if method == BASELINE else f"distilled from the teacher by `{method}`"
    sizes = params.data.sizes
    return (
        f"A `{params.model.family}` {params.model.student} student {maker}, and what it gives away of the teacher's "
        f"{sizes.private} private records (members) against {sizes.heldout} held-out ones.\n\n"
        "- `auc`, `auc_low`, `auc_high`: the headline attack and its 95 % interval; 0.5 is no leak. `auc_<attack>`: "
        "each attack.\n"
        "- `perplexity`, `rouge_l`: utility on held-out records.\n"
        "- The nested runs are its stages; the duration is the time spent in them.\n"
        "- Checkpoints stay in DVC: `checkpoint.path` and `checkpoint.sha256` name them."
    )


def _settings(params: Params, method: str) -> dict[str, Any]:
    """The sections that determine a method's student; the recipe as `kd`, whatever the method, so that runs compare."""
    sections = params.model_dump(include={"data", "canaries", "model", "optimizer", "base", "teacher"})
    if method == BASELINE:
        sections.pop("canaries")
        sections.pop("teacher")
    return sections | {"kd": recipe(method, params.kd).model_dump()}


def _defence(method: str, project: Project) -> dict[str, Any]:
    """Name and knobs of the defence that the student was made under, whatever params.yaml says by now."""
    defence = defence_of(method, project)
    return {} if defence is None else {"defence": {"name": defence["name"], **defence["knobs"]}}


def _stage_run(
    step: Step, project: Project, params: Params, settings: Mapping[str, Any], ids: Mapping[str, list[str]]
) -> StageRun:
    return replace(_untimed(step, project, params, settings, ids), took=_took(step, project))


def _untimed(
    step: Step, project: Project, params: Params, settings: Mapping[str, Any], ids: Mapping[str, list[str]]
) -> StageRun:
    stage, name = step
    roles = _ROLES[stage]
    origin, digest = find_source(params.data).origin, _digest([ids[r] for r in roles])[:16]
    dataset = Dataset(f"{params.data.source} {'+'.join(roles)}", origin, digest)
    if stage == "membership":
        report = read_json(project.membership(name))
        return StageRun(
            stage, name, flattened({"audit": params.audit.model_dump()}), attack_metrics(report, params), dataset,
            roc=_curves(project.roc(name)),
        )  # fmt: skip
    if stage == "blocks":
        used = params.audit.model_dump(include={"blocks", "noise"})
        return StageRun(
            stage, name, flattened({"audit": used}), block_metrics(read_json(project.blocks(name))), dataset
        )
    if stage == "memorization":
        metrics = headline_figures(read_json(project.memorization(name)))
        return StageRun(
            stage, name, flattened({stage: params.memorization.model_dump()}), known_figures(metrics), dataset
        )
    if stage == "utility":
        used = params.generation.model_dump()
        return StageRun(
            stage, name, flattened({"generation": used}), known_figures(read_json(project.utility(name))), dataset
        )
    training = read_json(project.training(name))
    section = {"teacher": params.teacher.model_dump()} if stage == "teacher" else {"kd": settings["kd"]}
    used = {"model": settings["model"], "optimizer": settings["optimizer"], **section}
    history = [known_figures(entry) for entry in training["history"]]
    final = {f"final_{key}": value for key, value in (history[-1] if history else {}).items() if key != "step"}
    metrics = known_figures({key: value for key, value in training.items() if key != "history"}) | final
    metrics |= realised_metrics(training) | defence_metrics(training)
    mechanism = mechanism_absent(name, training) or ("ran" if "mechanism" in training else "")
    described = {"seed": params.seed, **flattened(used)}
    return StageRun(stage, name, described, metrics, dataset, history, _checkpoint(project, name), mechanism)


def _curves(path: Path) -> Path:
    """`path`, where it holds curves."""
    rates = read_csv(path).reindex(columns=["fpr", "tpr", "attack"])
    if not all(rates[name].dtype.kind == "f" and rates[name].between(0, 1).all() for name in ("fpr", "tpr")):
        raise KdleakError(f"{path}: damaged (holds no ROC curves); delete it and run 'dvc repro'")
    return path


def _comparison(project: Project) -> dict[str, float]:
    """The figures of results/metrics.json that the student's own files do not hold."""
    figures = known_figures(read_json(project.metrics))
    return {key: value for key, value in figures.items() if not key.startswith("student_")}


def _checkpoint(project: Project, name: str) -> tuple[str, str] | None:
    """Path and content of a model that is in the folder (a clone may hold results alone)."""
    folder = project.model(name)
    if not (folder / "config.json").is_file():
        return None
    return folder.relative_to(project.root).as_posix(), content_hash(folder)


def _ids_by_role(project: Project) -> dict[str, list[str]]:
    table = read_parquet(project.splits, columns=["record_id", "role"])
    ids: dict[str, list[str]] = {}
    for record, role in sorted(zip(table["record_id"], table["role"], strict=True)):
        ids.setdefault(role, []).append(record)
    return ids


def _digest(content: Any, more: bytes = b"") -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode() + more).hexdigest()
