"""A project of a few dozen records whose defences stage runs in this process, in seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

from kdleak.core.files import read_parquet, write_parquet
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
    for name in ("sft", "teacher"):
        defended.audit(Variant(name), small, made)
    return made


def in_this_process(make, tasks, workers):
    """In place of `run_tasks`."""
    for task in tasks:
        yield task, make(*task)
