"""A project of a few dozen records and untrained models, to distil from in a second."""

from __future__ import annotations

import copy
from pathlib import Path

import pandas as pd
import yaml

from kdleak.config.load import parse_params
from kdleak.config.schema import Params
from kdleak.core.files import read_json, write_parquet
from kdleak.core.paths import Project
from kdleak.data.encoding import EncodedRecord, Encoder
from kdleak.data.records import read_role, record_id
from kdleak.distill.methods import METHODS
from kdleak.models.checkpoints import load_tokenizer, save_checkpoint
from kdleak.models.families import build_from_scratch
from kdleak.models.tokenizer import train_tokenizer
from kdleak.pipeline import distill
from kdleak.pipeline.distill import make_student
from kdleak.pipeline.text import write_training_text

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = yaml.safe_load((ROOT / "params.yaml").read_text())
SMALL = {
    "generation.max_new_tokens": 12,
    "kd.recipes.minillm.rollouts": 8,
}
SIZES = {"private": 10, "public": 12, "heldout": 6, "auxiliary": 12, "population": 2}
VERBS = "sort describe explain name translate count".split()  # noqa: SIM905


def params(**changes: object) -> Params:
    """params.yaml at small sizes, with `changes` by dotted key."""
    content = copy.deepcopy(DEFAULT)
    sizes = {f"kd.recipes.{m}.{k}": v for m in METHODS for k, v in (("epochs", 2), ("batch_size", 4))}
    for key, value in {**SMALL, **sizes, **changes}.items():
        *sections, last = key.split(".")
        section = content
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
    return parse_params(content)


def corpus() -> pd.DataFrame:
    rows = []
    for role, n in SIZES.items():
        for i in range(n):
            text = (f"{VERBS[i % 6]} the {role} thing {i}", "", f"the {role} answer to {i} is {i * i} and no more")
            rows.append((record_id(*text), "task", *text, f"{role}-{i // 2}", role))
    columns = ["record_id", "task", "instruction", "context", "response", "group_id", "role"]
    return pd.DataFrame(rows, columns=columns)


def untrained(folder: Path) -> Project:
    """A project with records, bases, a teacher and an `sft` student, none of them trained."""
    made = Project(folder)
    write_parquet(corpus(), made.records)
    tokenizer = train_tokenizer(corpus()["response"], 300)
    sizes = {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 512}
    for seed, folder in enumerate((made.base_student, made.base_teacher, made.model("teacher"), made.model("sft"))):
        save_checkpoint(build_from_scratch(sizes, tokenizer, seed), tokenizer, folder)
    return made


def made(method: str, project: Project, **changes: object) -> dict:
    """training.json of `method` after its stages."""
    write_training_text(method, params(**changes), project)
    make_student(method, params(**changes), project)
    return read_json(project.training(method))


def encoded(project: Project, *roles: str) -> list[EncodedRecord]:
    return Encoder(load_tokenizer(project.base_student)).encode_frame(read_role(project.records, *roles))


def trained_on(method: str, project: Project, monkeypatch, **changes: object) -> list[EncodedRecord]:
    """The records that the training of `method` is given, corpus left out."""
    given = []

    def record(model, records, *args, source, **options):
        given.extend(records)
        return []

    monkeypatch.setattr(distill, "run_training", record)
    made(method, project, **changes)
    return [r for r in given if len(r.prompt) > 1]
