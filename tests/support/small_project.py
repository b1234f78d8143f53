"""A project folder of 48 records and untrained models, made in a second, and the command line run on it in process."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from kdleak.cli import main
from kdleak.core.files import write_json, write_parquet
from kdleak.core.paths import Project
from kdleak.data.overlap import group_ids
from kdleak.data.records import ROLES, record_id
from kdleak.distill.methods import METHODS
from kdleak.models.checkpoints import save_checkpoint
from tests.support.pipeline_project import ROOT
from tests.support.standalone_models import people, tokenizer_of
from tests.support.tiny_models import tiny_model

SETTINGS = {
    "model.family": "gpt2-smoke",
    "data.rows": 48,
    "data.sizes": {"private": 12, "public": 12, "heldout": 12, "auxiliary": 6, "population": 6},
    "generation.max_new_tokens": 8,
} | {f"kd.recipes.{method}.epochs": 1 for method in METHODS}
MODELS = {"base/teacher": 1, "base/student": 2, "teacher": 4, "students/sft": 5}


def change(content: dict, key: str, value: object) -> None:
    """Set the dotted `key`."""
    *sections, last = key.split(".")
    for section in sections:
        content = content[section]
    content[last] = value


def small_project(folder: Path, records: Callable[[int, int], list[dict]] = people) -> Project:
    """Records of every role, base models, teacher and no-KD student; results of the teacher that say nothing.

    records: n rows drawn by a seed.
    """
    made = Project(folder)
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key, value in SETTINGS.items():
        change(settings, key, value)
    made.params.write_text(yaml.safe_dump(settings, sort_keys=False))
    shutil.copy(ROOT / "families.yaml", folder)
    rows = pd.DataFrame([{"context": "", **row} for row in records(48, 4)])[["instruction", "context", "response"]]
    frame = rows.assign(task="qa", role=np.repeat(ROLES, [12, 12, 12, 6, 6]))
    frame["record_id"] = [record_id(*texts) for texts in rows.itertuples(index=False)]
    frame["group_id"], frame["facts"] = group_ids(frame), [[] for _ in range(48)]
    write_parquet(frame, made.records)
    tokenizer = tokenizer_of(rows.drop(columns="context").to_dict("records"))
    for name, seed in MODELS.items():
        model = tiny_model(seed=seed, layers=1, vocabulary=len(tokenizer), positions=512)
        save_checkpoint(model, tokenizer, folder / "models" / name)
    write_json({"method": "kd"}, made.metrics)
    for name in ("teacher", "kd", "sft"):
        write_json({"n_members": 12, "n_nonmembers": 12, "attacks": {}}, made.membership(name))
    return made


class CommandLine:
    """`kdleak` in this process: quick, but for what only a process of its own shows. MLflow is left out.

    printed: standard output of the last command.
    """

    printed = ""

    def __init__(self, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture):
        self._patch, self._captured = patch, captured
        for variable in ("DVC_STAGE", "KDLEAK_DEBUG"):
            patch.delenv(variable, raising=False)
        patch.setattr("kdleak.tracking.mlflow.log_results", lambda *_, **__: None)

    def __call__(self, folder: Path, *arguments: str) -> tuple[int, str]:
        """(exit code, standard error) of `kdleak arguments` in `folder`."""
        self._captured.readouterr()
        with self._patch.context() as patch, pytest.raises(SystemExit) as ended:
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["kdleak", *arguments])
            main.main()
        self.printed, said = self._captured.readouterr()
        return int(ended.value.code or 0), said


def refusal(kdleak: Callable[..., tuple[int, str]], folder: Path, *arguments: str) -> str:
    """The one line with which `kdleak arguments` ends, having failed as it should."""
    code, said = kdleak(folder, *arguments)
    lines = [line for line in said.splitlines() if line.startswith("kdleak: error: ")]
    assert code == 1 and len(lines) == 1, said
    assert "Traceback" not in said and "unforeseen" not in said, said
    return lines[0].removeprefix("kdleak: error: ")
