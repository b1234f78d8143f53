"""The memorization stage on a teacher that knows its records, a student that knows half of them, and one that none."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from transformers import GPT2Config, GPT2LMHeadModel

from kdleak.config.load import parse_params
from kdleak.config.schema import Params
from kdleak.core.errors import KdleakError
from kdleak.core.paths import Project
from kdleak.core.variants import Variant
from kdleak.data.canaries import planted_rows, write_canaries
from kdleak.data.encoding import Encoder
from kdleak.data.synthetic import generate
from kdleak.models.checkpoints import save_checkpoint
from kdleak.models.tokenizer import train_tokenizer
from kdleak.pipeline.measure import measure_run
from kdleak.pipeline.memorization import judge_memorization
from kdleak.pipeline.passes import BASES, audited_records, read_passes, subject_of, write_passes
from tests.support.overfitted import overfit
from tests.support.pipeline_project import ROOT

NAMES = ("teacher", "sft", "kd")
MEMBERS = 4


def parameters() -> Params:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["canaries"] = {"repetitions": [1, 2], "each": 1, "references": 20}
    return parse_params(content)


def memorize(name: str, settings: Params, project: Project) -> None:
    """Measure and judge what a model repeats."""
    variant, records = Variant(name), audited_records(project)
    write_passes(measure_run(variant, [], settings, project), project.passes(name))
    subject = subject_of(project.model(name), records, settings, project)
    passes = read_passes(project.passes(name), subject.records)
    judge_memorization(variant, passes, records, subject, settings, project)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    made = Project(tmp_path_factory.mktemp("project"))
    corpus = [r for r in generate(24, seed=5) if not r.context][: 2 * MEMBERS]
    frame = pd.DataFrame(
        {
            "record_id": [r.record_id for r in corpus],
            "task": [r.task for r in corpus],
            "instruction": [r.instruction for r in corpus],
            "context": [r.context for r in corpus],
            "response": [r.response for r in corpus],
            "facts": [[{"kind": f.kind, "value": f.value} for f in r.facts] for r in corpus],
            "group_id": [r.record_id for r in corpus],
            "role": ["private", "heldout"] * MEMBERS,
        }
    )
    made.records.parent.mkdir(parents=True)
    frame.to_parquet(made.records)
    write_canaries(parameters().canaries, 0, made)
    canaries = pd.read_parquet(made.canaries)
    tokenizer = train_tokenizer([*frame["instruction"], *frame["response"], *canaries["response"]], 500)
    encoder = Encoder(tokenizer, 256, 512)
    members = encoder.encode_frame(frame[frame["role"] == "private"])
    secrets = encoder.encode_frame(planted_rows(canaries))
    for name, known in (("teacher", members + secrets[1:]), ("students/kd", members[:2]), ("students/sft", [])):
        torch.manual_seed(0)
        ids = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
        model = GPT2LMHeadModel(
            GPT2Config(vocab_size=len(tokenizer), n_embd=48, n_layer=2, n_head=2, resid_pdrop=0, embd_pdrop=0,
                       attn_pdrop=0, n_positions=512, **ids)
        )  # fmt: skip
        save_checkpoint(overfit(model, known) if known else model.eval(), tokenizer, made.root / "models" / name)
    (made.root / "models" / "base").mkdir()
    for part in BASES:
        made.base_model(part).symlink_to(made.model("sft"))
    for name in NAMES:
        memorize(name, parameters(), made)
    return made


def report(project: Project, name: str) -> dict:
    return json.loads(project.memorization(name).read_text())


def test_what_each_model_knows_is_what_is_reported(project):
    teacher, student, baseline = (report(project, name) for name in ("teacher", "kd", "sft"))
    assert (
        teacher["token_accuracy"]["members"] == teacher["reproduced"]["members"] == teacher["rouge_l"]["members"] == 1
    )
    assert teacher["token_accuracy"]["gap_ci95"][0] > 0
    assert teacher["extraction"]["facts"]["all"]["members"] == 1
    assert teacher["extraction"]["discoverable"]["100"]["0.9"]["members"] == 1
    assert student["reproduced"]["members"] == 0.5 and baseline["reproduced"]["members"] == 0
    assert student["inherited"]["records"] == {"members": 2, "nonmembers": 0}
    assert student["token_accuracy"]["no_kd"] == baseline["token_accuracy"]
    assert student["inheritance"][-1]["n"] == MEMBERS
    assert "inheritance" not in teacher and "inherited" not in baseline
    assert teacher["exact_match"]["8"]["members"] == 1


def test_a_planted_canary_is_exposed_by_the_teacher_alone(project):
    teacher, baseline = (report(project, name)["extraction"]["canaries"] for name in ("teacher", "sft"))
    assert teacher["references"] == 20
    # The canary planted twice was learnt, the other one was not even shown.
    assert teacher["repetitions"]["2"]["exposure"] == pytest.approx(np.log2(21), rel=1e-5)
    assert teacher["repetitions"]["1"]["exposure"] < np.log2(21)
    assert baseline["repetitions"]["2"]["exposure"] < np.log2(21)
    assert report(project, "kd")["extraction"]["canaries"]["no_kd"] == baseline


def test_tables_hold_a_row_a_record_a_fact_and_a_secret_and_no_text(project):
    frame = pd.read_parquet(project.records)
    records, facts, canaries = (
        pd.read_parquet(path)
        for path in (project.memorization_table("kd"), project.facts("kd"), project.canary_scores("kd"))
    )
    assert sorted(records["record_id"]) == sorted(frame["record_id"])
    assert len(facts) == frame["facts"].map(len).sum() and len(canaries) == 22
    written = "".join(path.read_bytes().decode("latin-1") for path in sorted(project.results("kd").iterdir()))
    for fact in frame["facts"].explode().dropna():
        assert fact["value"] not in written
    assert not {"response", "instruction", "context"} & {*records, *facts, *canaries}


def test_a_second_run_writes_the_same_bytes(project):
    paths = [
        project.memorization("kd"),
        project.memorization_table("kd"),
        project.facts("kd"),
        project.canary_scores("kd"),
    ]
    before = [path.read_bytes() for path in paths]
    for entry in project.cache.iterdir():
        entry.unlink()
    memorize("kd", parameters(), project)
    assert [path.read_bytes() for path in paths] == before


def test_without_canaries_or_facts_there_is_no_figure_of_them(project, tmp_path):
    (tmp_path / "models" / "students").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    bare = Project(tmp_path)
    (tmp_path / "models" / "students" / "sft").symlink_to(project.model("sft"))
    (tmp_path / "models" / "base").symlink_to(project.root / "models" / "base")
    frame = pd.read_parquet(project.records)
    frame.assign(facts=[[] for _ in range(len(frame))]).to_parquet(bare.records)
    write_canaries(parameters().canaries.model_copy(update={"each": 0}), 0, bare)
    memorize("sft", parameters(), bare)
    assert set(report(bare, "sft")["extraction"]) == {"discoverable"}


def test_a_student_before_its_baseline_is_one_line(project, tmp_path):
    alone = Project(tmp_path)
    (tmp_path / "models" / "students").mkdir(parents=True)
    (tmp_path / "models" / "students" / "kd").symlink_to(project.model("kd"))
    (tmp_path / "models" / "base").symlink_to(project.root / "models" / "base")
    (tmp_path / "data").symlink_to(project.records.parent)
    with pytest.raises(KdleakError, match=r"teacher.memorization.parquet: no such file; run the stage"):
        memorize("kd", parameters(), alone)
    assert not alone.memorization("kd").exists()
