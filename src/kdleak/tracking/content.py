"""What MLflow is told of a stage, read from the files that the stage has written.

Result files are the truth: a run logged as its stage ends and a run rebuilt from the files later are the same content.
A method's runs are steps `(stage, name)`, under one parent run: a command of that name, or one of the audits that
`kdleak measure` makes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdleak.core.files import read_json, read_parquet
from kdleak.core.paths import BASELINE, TEACHER
from kdleak.data.sources import find_source
from kdleak.memorization.report import headline_figures
from kdleak.models.checkpoints import content_hash

if TYPE_CHECKING:
    from kdleak.config.schema import Params
    from kdleak.core.paths import Project

Step = tuple[str, str]
#: The audits of a model, in the order in which they run.
AUDITS = ("membership", "blocks", "memorization", "utility")
#: Which roles' records a step reads.
_ROLES = {"teacher": ("private",), "distill": ("public",)}
_ROLES |= dict.fromkeys(AUDITS, ("private", "heldout")) | {"utility": ("heldout",)}
_NOT_IN_A_METRIC_NAME = re.compile(r"[^\w./ -]")


@dataclass(frozen=True)
class Dataset:
    """The records that a run read: where they come from, their roles, a hash of their ids."""

    name: str
    source: str
    digest: str


@dataclass(frozen=True)
class StageRun:
    """One nested run. history: metrics over steps, each with a `step`; checkpoint: (path, sha256); roc: a roc.csv."""

    stage: str
    name: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    dataset: Dataset
    history: Sequence[Mapping[str, float]] = ()
    checkpoint: tuple[str, str] | None = None
    roc: Path | None = field(default=None, compare=False)

    @property
    def title(self) -> str:
        return self.name if self.stage == self.name else f"{self.stage} {self.name}"

    @cached_property
    def content(self) -> str:
        """sha256 of all that is logged; equal content is logged once."""
        logged = {key: value for key, value in asdict(self).items() if key != "roc"}
        return _digest(logged, self.roc.read_bytes() if self.roc else b"")


@dataclass(frozen=True)
class MethodRuns:
    """A parent run and what nests in it. key: hash of all that determines the method's student."""

    method: str
    seed: int
    key: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    stages: Sequence[StageRun]

    @property
    def title(self) -> str:
        return f"{self.method} seed {self.seed}"


def steps_of(method: str, with_teacher: bool = True) -> list[Step]:
    """All steps of a method, in order; the last one only adds figures to the parent run."""
    student = [("distill", method), *((audit, method) for audit in AUDITS), ("summary", method)]
    return [("teacher", TEACHER), *((audit, TEACHER) for audit in AUDITS), *student] if with_teacher else student


def steps_of_stage(stage: str, name: str) -> list[Step]:
    """The steps that a stage is, as the command line names it."""
    return [(audit, name) for audit in AUDITS] if stage == "measure" else [(stage, name)]


def steps_until(stage: str, name: str) -> list[Step]:
    """The steps whose files are sure to be up to date when a stage has just run: its own and what it was made from."""
    if stage == "summary":
        return steps_of(name)
    made: list[Step] = [] if name == BASELINE else [("teacher", TEACHER)]
    if stage == "measure" and name != TEACHER:
        made.append(("distill", name))
    return list(dict.fromkeys([*made, *steps_of_stage(stage, name)]))


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


def method_runs(project: Project, params: Params, method: str, steps: Sequence[Step]) -> MethodRuns:
    """The runs of `steps`, all made with `params`; their result files must be there."""
    ids = _ids_by_role(project)
    settings = _settings(params, method)
    nested = [_stage_run(step, project, params, settings, ids) for step in steps if step[0] != "summary"]
    metrics: dict[str, float] = {}
    for run in nested:
        if run.name == method:
            metrics |= _headline(run, params.report.headline)
    if ("summary", method) in steps:
        metrics |= _comparison(project)
    flat = {"method": method, "seed": params.seed, **_flat(settings)}
    key = _digest({"params": flat, "data": _digest(ids)})
    return MethodRuns(method, params.seed, key, flat, metrics, nested)


def _settings(params: Params, method: str) -> dict[str, Any]:
    """The sections that determine a method's student; the recipe as `kd`, whatever the method, so that runs compare."""
    sections = params.model_dump(include={"data", "canaries", "model", "optimizer", "base", "teacher"})
    if method == BASELINE:
        sections.pop("canaries")
        sections.pop("teacher")
    return sections | {"kd": params.kd.recipes[method].model_dump()}


def _stage_run(
    step: Step, project: Project, params: Params, settings: Mapping[str, Any], ids: Mapping[str, list[str]]
) -> StageRun:
    stage, name = step
    roles = _ROLES[stage]
    origin, digest = find_source(params.data).origin, _digest([ids[r] for r in roles])[:16]
    dataset = Dataset(f"{params.data.source} {'+'.join(roles)}", origin, digest)
    if stage == "membership":
        report = read_json(project.membership(name))
        return StageRun(
            stage, name, _flat({"audit": params.audit.model_dump()}), _attack_metrics(report, params), dataset,
            roc=project.roc(name),
        )  # fmt: skip
    if stage == "blocks":
        used = params.audit.model_dump(include={"blocks", "noise"})
        return StageRun(stage, name, _flat({"audit": used}), _block_metrics(read_json(project.blocks(name))), dataset)
    if stage == "memorization":
        metrics = headline_figures(read_json(project.memorization(name)))
        return StageRun(stage, name, _flat({stage: params.memorization.model_dump()}), _numbers(metrics), dataset)
    if stage == "utility":
        used = params.generation.model_dump()
        return StageRun(stage, name, _flat({"generation": used}), _numbers(read_json(project.utility(name))), dataset)
    training = read_json(project.training(name))
    section = {"teacher": params.teacher.model_dump()} if stage == "teacher" else {"kd": settings["kd"]}
    used = {"model": settings["model"], "optimizer": settings["optimizer"], **section}
    history = [_numbers(entry) for entry in training["history"]]
    final = {f"final_{key}": value for key, value in (history[-1] if history else {}).items() if key != "step"}
    metrics = _numbers({key: value for key, value in training.items() if key != "history"}) | final
    return StageRun(
        stage, name, {"seed": params.seed, **_flat(used)}, metrics, dataset, history, _checkpoint(project, name)
    )


def _attack_metrics(report: Mapping[str, Any], params: Params) -> dict[str, float | None]:
    """auc, its interval and TPR at each FPR of every attack; the headline attack's AUC for each task."""
    metrics: dict[str, Any] = {"n_members": report["n_members"], "n_nonmembers": report["n_nonmembers"]}
    for attack, figures in report["attacks"].items():
        low, high = figures["auc_ci95"]
        metrics |= {f"auc/{attack}": figures["auc"], f"auc_low/{attack}": low, f"auc_high/{attack}": high}
        metrics |= {f"tpr_at_{fpr}_fpr/{attack}": tpr for fpr, tpr in figures["tpr_at_fpr"].items()}
    for task, attacks in report["tasks"].items():
        name = _NOT_IN_A_METRIC_NAME.sub("_", task)
        metrics[f"auc_by_task/{name}"] = attacks[params.report.headline]["auc"]
    return _numbers(metrics)


def _block_metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """auc and its interval of every block."""
    metrics: dict[str, Any] = {"n_perturbations": report["n_perturbations"]}
    for block in report["blocks"]:
        name, (low, high) = f"block_{block['index']}", block["auc_ci95"]
        metrics |= {f"auc/{name}": block["auc"], f"auc_low/{name}": low, f"auc_high/{name}": high}
    return _numbers(metrics)


def _headline(run: StageRun, attack: str) -> dict[str, float]:
    """What the parent shows of its student, in columns that sort."""
    if run.stage == "blocks":
        return {name.replace("/", "_"): value for name, value in run.metrics.items() if name.startswith("auc/")}
    if run.stage in ("memorization", "utility"):
        return {name: value for name, value in run.metrics.items() if name != "records"}
    if run.stage != "membership":
        return {"train_loss": run.metrics["final_loss"]} if "final_loss" in run.metrics else {}
    columns = {
        "auc": f"auc/{attack}",
        "auc_low": f"auc_low/{attack}",
        "auc_high": f"auc_high/{attack}",
        "tpr_at_1pct_fpr": f"tpr_at_0.01_fpr/{attack}",
    }
    shown = {column: run.metrics[name] for column, name in columns.items() if name in run.metrics}
    each = {name.replace("/", "_"): value for name, value in run.metrics.items() if name.startswith("auc/")}
    return shown | each | ({"best_auc": max(each.values())} if each else {})


def _comparison(project: Project) -> dict[str, float]:
    """The figures of results/metrics.json that the student's own files do not hold."""
    figures = _numbers(read_json(project.metrics))
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


def _flat(sections: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in sections.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = ",".join(map(str, value)) if isinstance(value, list | tuple) else value
    return flat


def _numbers(entries: Mapping[str, Any]) -> dict[str, float]:
    """The entries that are known figures."""
    return {k: v for k, v in entries.items() if isinstance(v, int | float) and not isinstance(v, bool) and v == v}


def _digest(content: Any, more: bytes = b"") -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode() + more).hexdigest()
