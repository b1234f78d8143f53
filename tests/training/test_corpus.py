"""The text of the language-modelling loss: auxiliary, or a file of one's own that repeats no private record."""

from __future__ import annotations

import json

import pytest

from kdleak.core.errors import KdleakError
from kdleak.core.files import write_parquet
from kdleak.core.paths import Project
from kdleak.data.records import read_role
from kdleak.models.checkpoints import load_tokenizer
from kdleak.training.corpus import lm_corpus
from tests.support.distillation import corpus, params, untrained


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return untrained(tmp_path_factory.mktemp("project"))


def test_the_lm_corpus_is_auxiliary_by_default(project):
    tokenizer = load_tokenizer(project.base_student)
    documents = lm_corpus(params(), project, tokenizer, 1000)
    assert [r.record_id for r in documents] == list(read_role(project.records, "auxiliary")["record_id"])


@pytest.mark.parametrize("suffix", ["txt", "jsonl"])
def test_the_lm_corpus_may_be_a_file_of_ones_own(project, suffix):
    texts = ["a first text " * 200, "a second one"]
    path = project.root / f"corpus.{suffix}"
    path.write_text("\n\n".join(texts) if suffix == "txt" else "\n".join(json.dumps({"text": t}) for t in texts))
    tokenizer = load_tokenizer(project.base_student)
    pieces = lm_corpus(params(**{"kd.lm_corpus": path.name}), project, tokenizer, 1000)
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
        lm_corpus(params(**{"kd.lm_corpus": path.name}), spoiled, tokenizer, 1000)
    path.write_text(" \n\n ")
    with pytest.raises(KdleakError, match="holds no text"):
        lm_corpus(params(**{"kd.lm_corpus": path.name}), spoiled, tokenizer, 1000)
    with pytest.raises(KdleakError, match="cannot be read"):
        lm_corpus(params(**{"kd.lm_corpus": "nowhere.txt"}), spoiled, tokenizer, 1000)


def test_a_file_is_read_no_further_than_its_records_are_needed(project, monkeypatch):
    tokenizer, path = load_tokenizer(project.base_student), project.root / "long.jsonl"
    lines = [json.dumps({"text": f"document number {i}"}) for i in range(40)]
    path.write_text("\n".join([*lines, "no JSON"]))
    monkeypatch.setattr("kdleak.training.corpus.DOCUMENTS", 10)
    settings = params(**{"kd.lm_corpus": path.name})
    read = lm_corpus(settings, project, tokenizer, 25)
    assert len(read) == 25 and read == lm_corpus(settings, project, tokenizer, 30)[:25]
    with pytest.raises(KdleakError, match="every line must be a JSON object with a 'text'"):
        lm_corpus(settings, project, tokenizer, 41)


def test_plain_text_without_blank_lines_is_cut(project, monkeypatch):
    tokenizer, path = load_tokenizer(project.base_student), project.root / "long.txt"
    path.write_text("".join(f"line {i}\n" for i in range(60)))
    monkeypatch.setattr("kdleak.training.corpus.LONGEST", 50)
    ends = [r.response[-1] for r in lm_corpus(params(**{"kd.lm_corpus": path.name}), project, tokenizer, 1000)]
    assert len(ends) > 5 and set(ends) == {tokenizer.eos_token_id}
