"""A project of a few dozen records whose defences stage runs in this process, in seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

from kdleak.core.files import read_parquet, write_json, write_parquet
from kdleak.core.paths import Project
from kdleak.core.variants import CONTROL, Variant
from kdleak.data.canaries import write_canaries
from kdleak.pipeline import defended
from kdleak.pipeline.measure import measure_base
from kdleak.pipeline.passes import BASES, write_passes
from tests.support.distillation import params, untrained

GRID = [{"name": "early_stop", "epochs": 1}, {"name": "top_k", "k": 2}]
SETTINGS = {
    "canaries.each": 1, "canaries.repetitions": [1, 3], "canaries.references": 3, "teacher.epochs": 2,
    "teacher.batch_size": 4, "kd.recipes.kd.epochs": 1, "kd.recipes.rkl.epochs": 1, "kd.recipes.seqkd.epochs": 1,
    "kd.recipes.imitkd.epochs": 1,
    "audit.attacks": ["loss", "ez", "ref_no_kd", "mope"], "audit.permutations": 20, "memorization.tokens": 4,
    "defence.grid": GRID,
}  # fmt: skip


def settings(**changes: object):
    return params(**{**SETTINGS, **changes})


def audited_project(folder: Path) -> Project:
    """Untrained models, and all that the defences stage reads of bases, teacher, no-KD student and control."""
    made, small = untrained(folder), settings()
    records = read_parquet(made.records)
    write_parquet(records.assign(facts=[[] for _ in range(len(records))]), made.records)
    write_canaries(small.canaries, 0, made)
    shutil.copytree(made.base_teacher, made.base_external)
    for part in BASES:
        passes = measure_base(made.base_model(part), small, made, known=part == "student")
        write_passes(passes, made.base_passes(part))
    write_passes(measure_base(made.model("sft"), small, made), made.passes(CONTROL))
    write_json({"history": []}, made.training("teacher"))
    for name in ("sft", "teacher"):
        defended.audit(Variant(name), small, made)
    return made


def in_this_process(make, tasks, workers):
    """In place of `run_tasks`."""
    for task in tasks:
        yield task, make(*task)


def compared_defences() -> dict:
    """What frontier.json holds of five trainings: controls, one defence that is shown to help, two that are not."""
    rows = [
        ("none", None, 100.0, 0.93, 8.9, None, {}),
        ("early_stop-epochs-1", 1, 112.0, 0.71, 3.0, None, {}),
        ("blend-base_share-0.5", 0.5, 106.0, 0.70, 5.0, None, {"verdict": "better", "p_holm": 0.0004}),
        ("top_k-k-5", 5, 101.0, 0.92, 8.9, None, {"verdict": "no difference", "p_holm": 1.0}),
        ("dp_sgd-sigma-0.8", 0.8, 126.0, 0.52, 1.5, 8.1, {"verdict": "not comparable"}),
    ]
    points, summary = [], []
    for name, strength, perplexity, leak, exposure, epsilon, verdict in rows:
        defence = name.partition("-")[0]
        figures = _figures(perplexity, leak, exposure)
        control, out = not verdict, perplexity > 106
        points.append({
            "name": name, "defence": defence, "strength": strength, "knobs": {}, "acts_on": None, "control": control,
            "method": "kd", "seed": 0, "epsilon": epsilon, "delta": epsilon and 1e-3,
            "epsilon_covers": epsilon and "private", "epsilon_of_groups": {}, "dominated": out,
            "auc": leak, "auc_ci95": [leak - 0.02, leak + 0.02], "tpr_at_1pct": 0.2, **figures,
        })  # fmt: skip
        summary.append(_summary(name, perplexity, leak, control, out) | _told(verdict))
    summary.append(_summary("no-KD", 125.0, 0.5, True, False))
    no_kd = _figures(125.0, 0.52, 1.4)
    del no_kd["attacks"]["ref_no_kd"]
    left_out = {"dp_student-sigma-0.8-seed-0 rkl-fraction-1.0": "its batches hold more"}
    return {"attack": "ref_no_kd", "points": points, "compared": summary, "no_kd": no_kd, "left_out": left_out}


def _figures(perplexity: float, leak: float, exposure: float) -> dict:
    attack = {"auc": leak, "leak": leak, "leak_ci95": [leak - 0.02, leak + 0.02], "tpr_at_1pct": 0.2,
              "tpr_at_1pct_ci95": [0.1, 0.3]}  # fmt: skip
    return {
        "perplexity": perplexity, "rouge_l": 0.11, "rouge_l_ci95": [0.1, 0.12],
        "attacks": {name: dict(attack) for name in ("loss", "ez", "ref_no_kd")},
        "exposure": exposure, "exposure_ci95": [exposure - 0.5, exposure + 0.5],
        "token_accuracy_gap": 0.004, "token_accuracy_gap_ci95": [0.001, 0.007], "extracted": 0.0,
        "extracted_gap_ci95": [-0.01, 0.01],
    }  # fmt: skip


def _summary(name: str, perplexity: float, leak: float, control: bool, out: bool) -> dict:
    return {"name": f"{name} kd", "point": name, "method": "kd", "perplexity": perplexity, "leak": leak, "error": 0.01,
            "control": control, "dominated": out, "on_hull": not out, "on_line": control}  # fmt: skip


def _told(verdict: dict) -> dict:
    if not verdict:
        return {}
    tried = verdict["verdict"] != "not comparable"
    difference = {"loss": {"value": 0.1, "ci95": [0.05, 0.15], "p_value": 0.0001, "runs": 1}} if tried else {}
    return {"beside": {"none": 0.5, "early_stop-epochs-1": 0.5} if tried else {}, "difference": difference,
            "p_holm": None, "detectable": 0.031 if tried else None, "adaptive_attack": False, **verdict}  # fmt: skip
