"""What reaches a student: the door that lets no member through, the teacher's text, what is watched."""

from __future__ import annotations

import pandas as pd
import pytest

from kdleak.core.errors import KdleakError
from kdleak.core.files import write_parquet
from kdleak.core.paths import Project
from kdleak.data.encoding import EncodedRecord
from kdleak.data.records import read_role
from kdleak.distill.context import Context
from kdleak.distill.guard import refuse_members
from kdleak.distill.methods import METHODS
from kdleak.distill.teacher_text import with_teacher_text
from kdleak.models.checkpoints import load_model, save_checkpoint
from kdleak.models.families import build_from_scratch
from kdleak.models.tokenizer import train_tokenizer
from kdleak.pipeline.distill import make_student
from kdleak.pipeline.text import write_training_text
from tests.support.distillation import corpus, encoded, made, params, trained_on, untrained
from tests.support.tiny_models import random_records


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return untrained(tmp_path_factory.mktemp("project"))


def test_seqkd_trains_on_the_teachers_words_and_on_no_reference(project, monkeypatch):
    write_training_text("seqkd", params(), project)
    table = pd.read_parquet(project.training_text("seqkd"))
    assert set(table["record_id"]) == set(read_role(project.records, "public")["record_id"])
    seen = trained_on("seqkd", project, monkeypatch)
    said = {tuple(tokens) for tokens in table["tokens"]}
    assert {r.response for r in seen} == said
    references = {r.response for r in encoded(project, "public")}
    assert not references & said


def test_a_missing_teacher_response_is_an_error_and_no_reference(project):
    write_training_text("seqkd", params(), project)
    path = project.training_text("seqkd")
    records = encoded(project, "public")
    write_parquet(pd.read_parquet(path).iloc[1:], path)
    with pytest.raises(KdleakError, match="no response to record"):
        with_teacher_text(records, path, 0)


def test_the_corrected_protocol_hands_out_no_private_prompt(project):
    context = Context("minillm", params(), project, load_model(project.base_student))
    with pytest.raises(KdleakError, match="10 private records would reach the student"):
        context.private_prompts()
    published = params(**{"kd.protocol": "as_published"})
    assert len(Context("minillm", published, project, load_model(project.base_student)).private_prompts()) == 10


def test_no_technique_meets_a_private_record(project, monkeypatch):
    private = {r.prompt for r in encoded(project, "private")}
    for method in METHODS:
        assert not {r.prompt for r in trained_on(method, project, monkeypatch)} & private


def test_a_private_record_among_the_public_stops_the_run(project, tmp_path):
    spoiled = Project(tmp_path)
    frame = corpus()
    member = frame[frame["role"] == "private"].iloc[3]
    frame.loc[frame["role"] == "public", ["instruction", "response"]] = member[["instruction", "response"]].to_list()
    write_parquet(frame, spoiled.records)
    (tmp_path / "models").symlink_to(project.root / "models")
    with pytest.raises(KdleakError, match="12 private records would reach the student"):
        make_student("kd", params(), spoiled)


def test_members_are_known_by_id_and_by_content():
    members, others = random_records(6)[:3], random_records(6)[3:]
    refuse_members(others, members)
    same_id = EncodedRecord(members[1].record_id, (1,), (2, 0), 1)
    same_words = EncodedRecord("another id", members[2].prompt, members[2].response, 1)
    for spoiled in (same_id, same_words):
        with pytest.raises(KdleakError, match="1 private records would reach the student"):
            refuse_members([*others, spoiled], members)


def test_a_teacher_with_another_vocabulary_is_refused(project, tmp_path):
    mixed = Project(tmp_path)
    write_parquet(corpus(), mixed.records)
    sizes = {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 512}
    for words, folders in ((300, [mixed.base_student]), (320, [mixed.model("teacher")])):
        tokenizer = train_tokenizer(corpus()["instruction"] + corpus()["response"], words)
        for folder in folders:
            save_checkpoint(build_from_scratch(sizes, tokenizer, 0), tokenizer, folder)
    with pytest.raises(KdleakError, match="the student predicts 300 tokens, the teacher 320"):
        make_student("kd", params(**{"kd.start": "base"}), mixed)


def test_distillm_trains_on_all_of_public_and_watches_the_loss_of_records_that_no_training_has_seen(project):
    validation = Context("distillm", params(), project, load_model(project.base_student)).validation()
    assert {r.record_id for r in validation} == set(read_role(project.records, "population")["record_id"])
    record = made("distillm", project)
    assert record["records"] == len(read_role(project.records, "public"))
    assert {"threshold", "validation_loss", "student_written"} <= set(record["history"][0])
