"""Each technique does what defines it, from its entry in the registry to its student."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from kdleak.config.load import parse_params
from kdleak.config.schema import METHODS, Params
from kdleak.core.errors import KdleakError
from kdleak.core.files import read_json, write_parquet
from kdleak.core.paths import Project
from kdleak.data.encoding import EncodedRecord, Encoder
from kdleak.data.records import read_role, record_id
from kdleak.distill.guard import refuse_members
from kdleak.distill.plan import make_plan
from kdleak.distill.techniques import TECHNIQUES, Text
from kdleak.models.checkpoints import load_model, load_tokenizer, save_checkpoint
from kdleak.models.families import build_from_scratch
from kdleak.models.tokenizer import train_tokenizer
from kdleak.pipeline import distill
from kdleak.pipeline.distill import held_out_part, make_student
from kdleak.pipeline.text import with_teacher_text, write_training_text
from kdleak.pipeline.utility import measure_utility
from kdleak.training.corpus import lm_corpus
from tests.support.tiny_models import random_records

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = yaml.safe_load((ROOT / "params.yaml").read_text())
SMALL = {
    "generation.max_new_tokens": 12,
    "kd.recipes.minillm.rollouts": 8,
    "kd.recipes.distillm.validation_share": 0.3,
} | {f"kd.recipes.{m}.{k}": v for m in METHODS for k, v in (("epochs", 2), ("batch_size", 4))}
SIZES = {"private": 10, "public": 12, "heldout": 6, "auxiliary": 12, "population": 2}
VERBS = "sort describe explain name translate count".split()  # noqa: SIM905


def params(**changes: object) -> Params:
    content = copy.deepcopy(DEFAULT)
    for key, value in {**SMALL, **changes}.items():
        *sections, last = key.split(".")
        place = content
        for section in sections:
            place = place[section]
        place[last] = value
    return parse_params(content)


def corpus() -> pd.DataFrame:
    rows = []
    for role, n in SIZES.items():
        for i in range(n):
            text = (f"{VERBS[i % 6]} the {role} thing {i}", "", f"the {role} answer to {i} is {i * i} and no more")
            rows.append((record_id(*text), "task", *text, f"{role}-{i // 2}", role))
    columns = ["record_id", "task", "instruction", "context", "response", "group_id", "role"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return untrained(tmp_path_factory.mktemp("project"))


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
    """The run's record after its stages."""
    write_training_text(method, params(**changes), project)
    make_student(method, params(**changes), project)
    return read_json(project.training(method))


@pytest.mark.parametrize("method", METHODS)
def test_every_technique_moves_the_student_that_it_is_meant_to_start_from(method, project):
    if method == "sft":
        project = Project(project.root)  # its checkpoint is the others' start: keep it
        before = load_model(project.model("sft")), load_tokenizer(project.model("sft"))
    record = made(method, project)
    assert record["defects"] == {} and record["protocol"] == "corrected"
    assert record["starts_from"] == ("sft" if TECHNIQUES[method].on_policy else "base")
    assert [entry["epoch"] for entry in record["history"]] == [1, 2]
    assert all(math.isfinite(entry["loss"]) for entry in record["history"])
    start = project.model("sft") if TECHNIQUES[method].on_policy else project.base_student
    moved = [
        not torch.equal(a, b)
        for a, b in zip(load_model(project.model(method)).parameters(), load_model(start).parameters(), strict=True)
    ]
    assert any(moved)
    assert not project.resume(method).exists()
    if method == "sft":
        save_checkpoint(*before, project.model("sft"))


def test_the_same_parameters_make_the_same_student_to_the_bit(project):
    for method in ("gkd", "distillm", "minillm"):
        first = made(method, project), project.model(method).joinpath("model.safetensors").read_bytes()
        second = made(method, project), project.model(method).joinpath("model.safetensors").read_bytes()
        assert first == second


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


def test_only_seqkd_has_the_teacher_write(project):
    for method in METHODS:
        if TECHNIQUES[method].text is not Text.TEACHER:
            write_training_text(method, params(), project)
            assert pd.read_parquet(project.training_text(method)).empty
    write_training_text("seqkd", params(**{"kd.protocol": "as_published"}), project)
    assert pd.read_parquet(project.training_text("seqkd")).empty


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
    with pytest.raises(KdleakError, match="the student predicts 300 words, the teacher 320"):
        make_student("kd", params(), mixed)


def test_distillm_keeps_whole_groups_of_public_for_validation(project):
    public = read_role(project.records, "public")
    kept = held_out_part(public, 0.3, seed=5)
    assert 0 < kept.sum() < len(public)
    assert not set(public["group_id"][kept]) & set(public["group_id"][~kept])
    assert not held_out_part(public, 0.0, seed=5).any()
    assert held_out_part(public, 1e-6, seed=5).sum() == 2  # one group at least
    record = made("distillm", project)
    assert record["records"] < len(public)
    assert {"threshold", "validation_loss", "student_written"} <= set(record["history"][0])


# The two protocols.


def plan(method: str, **changes: object):
    return make_plan(method, params(**changes).kd)


PUBLISHED = {"kd.protocol": "as_published"}


def test_each_published_defect_is_reproduced_and_named(project, monkeypatch):
    seqkd, kd = plan("seqkd", **PUBLISHED), plan("kd", **PUBLISHED)
    assert (seqkd.technique.text, seqkd.technique.loss, seqkd.defects) == (Text.REFERENCES, "fkl", (1,))
    assert seqkd.lr == pytest.approx(10 * kd.lr) and kd.defects == ()
    assert plan("minillm", **PUBLISHED).defects == (2, 3)
    private = {r.prompt for r in encoded(project, "private")}
    assert private <= {r.prompt for r in trained_on("minillm", project, monkeypatch, **PUBLISHED)}
    for method in ("imitkd", "gkd", "distillm"):
        published = plan(method, **PUBLISHED)
        assert published.defects == (3, 4) and published.drop_first_token and not published.from_sft
        assert plan(method).from_sft and not plan(method).drop_first_token
    sft = plan("sft", **PUBLISHED)
    assert (sft.defects, sft.epochs, sft.lr) == ((7,), 1, kd.lr)


def test_the_runs_record_names_its_defects(project):
    record = made("gkd", project, **PUBLISHED)
    assert record["protocol"] == "as_published" and record["starts_from"] == "base"
    assert set(record["defects"]) == {"3", "4"} and "init checkpoint" in record["defects"]["3"]


def test_the_corrected_no_kd_baseline_has_the_budget_of_kd():
    own = parse_params(DEFAULT).kd
    sft, kd = make_plan("sft", own), make_plan("kd", own)
    assert (sft.lr, sft.epochs, sft.batch_size) == (kd.lr, kd.epochs, kd.batch_size)


# The share of student-written data, and other parameters.


@pytest.mark.parametrize("method", ["kd", "rkl", "jsd", "sfkl", "srkl", "tvd", "imitkd", "gkd"])
def test_student_fraction_sweeps_the_share_for_any_divergence(method):
    for fraction in (0.0, 0.3, 1.0):
        swept = plan(method, **{"kd.student_fraction": fraction})
        assert swept.options["student_fraction"] == fraction
        assert swept.technique.loss == TECHNIQUES[method].loss and swept.from_sft
    assert plan("sft", **{"kd.student_fraction": 0.3}) == plan("sft")


def test_a_swept_share_is_what_the_student_is_trained_on(project):
    for fraction in (0.0, 1.0):
        record = made("rkl", project, **{"kd.student_fraction": fraction})
        assert [entry["student_written"] for entry in record["history"]] == [fraction, fraction]


@pytest.mark.parametrize("method", ["seqkd", "distillm", "minillm"])
def test_a_technique_that_decides_its_own_data_takes_no_student_fraction(method):
    with pytest.raises(KdleakError, match=f"student_fraction: '{method}' decides itself"):
        params(**{"kd.student_fraction": 0.5, "kd.method": method})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("kd.recipes.kd.weight", 0.5, "'weight' is no option of 'kd'"),
        ("kd.recipes.gkd.wait", 0.5, "did you mean 'weight'?"),
        ("kd.recipes.jsd.weight", 1.0, "kd.recipes.jsd.weight"),
        ("kd.recipes.distillm.alpha", 1.5, "kd.recipes.distillm.alpha"),
        ("kd.protocol", "published", "did you mean 'as_published'?"),
        ("kd.student_fraction", 2, "kd.student_fraction"),
        ("generation.max_new_tokens", 0, "generation.max_new_tokens"),
    ],
)
def test_a_wrong_option_is_named(key, value, words):
    content = copy.deepcopy(DEFAULT)
    *sections, last = key.split(".")
    place = content
    for section in sections:
        place = place[section]
    place[last] = value
    with pytest.raises(KdleakError) as caught:
        parse_params(content)
    assert words in str(caught.value) and "\n" not in str(caught.value)


# The corpus of the LM loss.


def test_the_lm_corpus_is_auxiliary_by_default(project):
    tokenizer = load_tokenizer(project.base_student)
    documents = lm_corpus(params(), project, tokenizer)
    assert [r.record_id for r in documents] == list(read_role(project.records, "auxiliary")["record_id"])


@pytest.mark.parametrize("suffix", ["txt", "jsonl"])
def test_the_lm_corpus_may_be_a_file_of_ones_own(project, suffix):
    texts = ["a first text " * 200, "a second one"]
    path = project.root / f"corpus.{suffix}"
    path.write_text("\n\n".join(texts) if suffix == "txt" else "\n".join(json.dumps({"text": t}) for t in texts))
    tokenizer = load_tokenizer(project.base_student)
    pieces = lm_corpus(params(**{"kd.lm_corpus": path.name}), project, tokenizer)
    assert len(pieces) > 2 and all(len(p.prompt) + len(p.response) <= 512 for p in pieces)
    words = "".join(tokenizer.decode([t for t in p.response if t != tokenizer.eos_token_id]) for p in pieces)
    assert words == "".join(t.strip() for t in texts)
    assert sum(p.response[-1] == tokenizer.eos_token_id for p in pieces) == 2


def test_a_corpus_that_repeats_private_records_or_is_none_is_refused(project):
    tokenizer, path = load_tokenizer(project.base_student), project.root / "corpus.txt"
    frame = corpus()
    frame["response"] += " " + " ".join(f"word{i}" for i in range(30))
    spoiled = Project(project.root / "spoiled")
    write_parquet(frame, spoiled.records)
    path = spoiled.root / "corpus.txt"
    path.write_text("harmless\n\n" + frame[frame["role"] == "private"].iloc[2]["response"])
    with pytest.raises(KdleakError, match="1 documents repeat private records"):
        lm_corpus(params(**{"kd.lm_corpus": path.name}), spoiled, tokenizer)
    path.write_text(" \n\n ")
    with pytest.raises(KdleakError, match="holds no text"):
        lm_corpus(params(**{"kd.lm_corpus": path.name}), spoiled, tokenizer)
    with pytest.raises(KdleakError, match="cannot be read"):
        lm_corpus(params(**{"kd.lm_corpus": "nowhere.txt"}), spoiled, tokenizer)


def test_utility_is_measured_on_the_held_out_records(project):
    measure_utility("sft", params(), project)
    figures = read_json(project.utility("sft"))
    assert figures["records"] == SIZES["heldout"]
    assert figures["perplexity"] > 1 and figures["perplexity_of_base"] > 1
    low, high = figures["rouge_l_ci95"]
    assert 0 <= low <= figures["rouge_l"] <= high <= 1
