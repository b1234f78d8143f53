"""The text of the LM loss: general, auxiliary, or a file of one's own that repeats no private record."""

from __future__ import annotations

import itertools
import json
import tracemalloc

import pandas as pd
import pytest

from kdleak.core.errors import KdleakError
from kdleak.core.files import write_parquet
from kdleak.core.paths import Project
from kdleak.data.records import read_role
from kdleak.data.synthetic.general import general_documents
from kdleak.distill.methods import METHODS
from kdleak.distill.recipes import run_options
from kdleak.models.checkpoints import load_tokenizer
from kdleak.pipeline.validate import corpus_content
from kdleak.training import corpus as corpus_module
from kdleak.training.corpus import lm_corpus
from kdleak.training.token_blocks import TokenBlocks, blocks_stand_in, write_blocks
from tests.support.distillation import corpus, made, params, untrained


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return untrained(tmp_path_factory.mktemp("project"))


def read(project: Project, name: str, most: int = 1000) -> list:
    return list(lm_corpus(params(**{"kd.lm_corpus": name}), project, load_tokenizer(project.base_student), most))


def words_of(pieces: list, project: Project) -> str:
    tokenizer = load_tokenizer(project.base_student)
    return "".join(tokenizer.decode([t for t in p.response if t != tokenizer.eos_token_id]) for p in pieces)


def test_the_auxiliary_records_are_a_corpus(project):
    documents = read(project, "auxiliary")
    assert [r.record_id for r in documents] == list(read_role(project.records, "auxiliary")["record_id"])


def test_the_general_corpus_is_as_long_as_a_training_needs_it(project):
    pieces, tokenizer = read(project, "general", most=40), load_tokenizer(project.base_student)
    assert len(pieces) == 40 and pieces == read(project, "general", most=60)[:40]
    whole = [p for p in pieces if p.response[-1] == tokenizer.eos_token_id]
    assert all(p.prompt == (tokenizer.eos_token_id,) and len(p.response) < 512 for p in pieces) and len(whole) > 5
    text = words_of(pieces, project)
    assert text.startswith("".join(itertools.islice(general_documents(0), len(whole))))


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "parquet"])
def test_the_lm_corpus_may_be_a_file_of_ones_own(project, suffix):
    texts = ["a first text " * 200, "a second one"]
    path = project.root / f"corpus.{suffix}"
    if suffix == "parquet":
        write_parquet(pd.DataFrame({"text": texts, "other": [1, 2]}), path)
    else:
        path.write_text("\n\n".join(texts) if suffix == "txt" else "\n".join(json.dumps({"text": t}) for t in texts))
    tokenizer = load_tokenizer(project.base_student)
    pieces = read(project, path.name)
    assert len(pieces) > 2 and all(len(p.prompt) + len(p.response) <= 512 for p in pieces)
    assert words_of(pieces, project) == "".join(t.strip() for t in texts)
    assert sum(p.response[-1] == tokenizer.eos_token_id for p in pieces) == 2


def test_a_corpus_that_repeats_private_records_or_is_none_is_refused(project):
    frame = corpus()
    frame["response"] += " " + " ".join(f"word{i}" for i in range(30))
    spoiled = untrained(project.root / "spoiled")
    write_parquet(frame, spoiled.records)
    path = spoiled.root / "corpus.txt"
    path.write_text("harmless\n\n" + frame[frame["role"] == "private"].iloc[2]["response"])
    with pytest.raises(KdleakError, match=r"1 documents repeat private records \(the first is number 2\)"):
        read(spoiled, path.name)
    path.write_text(" \n\n ")
    with pytest.raises(KdleakError, match="holds no text"):
        read(spoiled, path.name)
    with pytest.raises(KdleakError, match="cannot be read: no such file"):
        read(spoiled, "nowhere.txt")


def test_a_damaged_file_is_named(project):
    for name, content, words in (
        ("latin.txt", "café".encode("latin-1"), "cannot be read as UTF-8 text"),
        ("no.jsonl", b'{"text": "a"}\n{"text": 3}\n', "no.jsonl, line 2: must be a JSON object with a 'text'"),
        ("no.parquet", b"PAR1", "not a Parquet file with a text in each row's 'text'"),
    ):
        (project.root / name).write_bytes(content)
        with pytest.raises(KdleakError, match=words):
            read(project, name)
    write_parquet(pd.DataFrame({"words": ["a"]}), project.root / "other.parquet")
    with pytest.raises(KdleakError, match="not a Parquet file with a text"):
        read(project, "other.parquet")


def test_a_file_is_read_no_further_than_its_records_are_needed(project, monkeypatch):
    path = project.root / "long.jsonl"
    lines = [json.dumps({"text": f"document number {i}"}) for i in range(40)]
    path.write_text("\n".join([*lines, "no JSON"]))
    monkeypatch.setattr("kdleak.training.corpus.DOCUMENTS", 10)
    pieces = read(project, path.name, 25)
    assert len(pieces) == 25 and pieces == read(project, path.name, 30)[:25]
    with pytest.raises(KdleakError, match="must be a JSON object with a 'text'"):
        read(project, path.name, 41)


def test_plain_text_without_blank_lines_or_line_ends_is_cut(project, monkeypatch):
    monkeypatch.setattr("kdleak.data.corpus_files.LONGEST", 50)
    for text in ("".join(f"line {i}\n" for i in range(60)), "words " * 100):
        (project.root / "long.txt").write_text(text)
        pieces = read(project, "long.txt")
        ends = {r.response[-1] for r in pieces}
        assert len(pieces) > 5 and ends == {load_tokenizer(project.base_student).eos_token_id}
        assert "".join(words_of(pieces, project).split()) == "".join(text.split())


def test_the_memory_that_a_file_takes_does_not_grow_with_its_length(project, monkeypatch):
    """Ten million lines are as many portions of one size: peaks of 10,000 and of 40,000 lines, tokenised to the end."""
    monkeypatch.setattr(corpus_module, "CHARACTERS", 10_000)
    tokenizer, peaks = load_tokenizer(project.base_student), {}
    for lines in (1_000, 10_000, 40_000):  # the first also loads what reading needs
        path = project.root / f"{lines}.txt"
        with path.open("w") as file:
            file.writelines(f"a short line of the name {i}\n" + "\n" * (i % 3 == 0) for i in range(lines))
        settings = params(**{"kd.lm_corpus": path.name})
        tracemalloc.start()
        pieces = lm_corpus(settings, project, tokenizer, 10**9)
        peaks[lines] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sum(len(p.response) for p in pieces) > 8 * lines
    assert peaks[40_000] < 1.2 * peaks[10_000] and peaks[40_000] < path.stat().st_size


def test_a_corpus_is_tokenised_once_and_again_when_its_content_changes(project, monkeypatch):
    path = project.root / "once.txt"
    path.write_text("one text\n\nanother text")
    first = read(project, path.name)
    with monkeypatch.context() as patch:
        patch.setattr(corpus_module, "documents", lambda path: pytest.fail("read again"))
        assert read(project, path.name) == first
    path.write_text("one text\n\nanother test")
    assert read(project, path.name) != first


def test_blocks_are_read_back_as_they_were_written_and_half_a_file_is_none(tmp_path):
    folder, blocks = tmp_path / "blocks", [[5, 6, 7], [8], [2**31 - 1, 0]]
    assert write_blocks(iter(blocks), folder) == 3 and blocks_stand_in(folder)
    stored = TokenBlocks(folder, start=9)
    assert [list(r.response) for r in stored] == blocks and stored[-1] == stored[2]
    assert [r.prompt for r in stored[:2]] == [(9,), (9,)] and len(stored) == 3
    with pytest.raises(IndexError):
        stored[3]
    (folder / "tokens.bin").write_bytes((folder / "tokens.bin").read_bytes()[:-1])
    assert not blocks_stand_in(folder) and not blocks_stand_in(tmp_path / "none")


# The choice, for every method.


def weights(**changes: object) -> dict[str, float]:
    return {m: run_options(m, params(**changes).kd).lm_weight for m in METHODS}


def test_no_method_has_a_corpus_in_the_controlled_grid_and_in_the_papers_those_whose_papers_have_one():
    assert set(weights().values()) == {0.0}
    assert {m for m, weight in weights(**{"kd.grid": "paper"}).items() if weight} == {"distillm", "minillm"}
    published = {"kd.protocol": "as_published"}
    assert {m for m, weight in weights(**published).items() if weight} == {"imitkd", "distillm", "minillm"}


def test_none_is_no_corpus_anywhere_and_a_weight_holds_for_all():
    for grid in ({"kd.grid": "paper"}, {"kd.protocol": "as_published"}):
        assert set(weights(**grid, **{"kd.lm_corpus": "none", "kd.recipes.sft.lm_weight": 1.0}).values()) == {0.0}
    assert {w for m, w in weights(**{"kd.lm_weight": 0.5}).items() if m != "sft"} == {0.5}
    with pytest.raises(KdleakError, match=r"kd: lm_weight: an LM loss needs a text; set kd.lm_corpus to general"):
        params(**{"kd.lm_corpus": "none", "kd.lm_weight": 0.5})
    with pytest.raises(KdleakError, match="lm_corpus: 'generel' is no text; did you mean 'general'"):
        params(**{"kd.lm_corpus": "generel"})


def test_a_run_says_which_corpus_it_had(project):
    assert made("kd", project)["lm_corpus"] == "none"
    record = made("distillm", project, **{"kd.grid": "paper"})
    assert (record["lm_corpus"], record["corpus_records"]) == ("general", 4 * 6)
    record = made("kd", project, **{"kd.lm_weight": 0.5, "kd.lm_corpus": "auxiliary"})
    assert (record["lm_corpus"], record["corpus_records"]) == ("auxiliary", 12)


def test_the_dependency_of_a_students_stage_is_the_files_content(project):
    path = project.root / "dependency.txt"
    contents = set()
    for text in ("one", "two", "one"):
        path.write_text(text)
        contents.add(corpus_content(params(**{"kd.lm_corpus": path.name}), project))
    assert len(contents) == 2
    assert len({corpus_content(params(**{"kd.lm_corpus": c}), project) for c in ("none", "general", "auxiliary")}) == 1
