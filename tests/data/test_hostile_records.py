"""Whatever stands in a record is data: it goes through reading, checks, encoding, scoring and memorization whole."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdleak.attacks import AttackInput, attack_scores
from kdleak.config.load import load_params
from kdleak.core.errors import KdleakError
from kdleak.core.files import read_parquet, write_parquet
from kdleak.data.checks.validation import run_checks
from kdleak.data.encoding import Encoder
from kdleak.data.overlap import group_ids
from kdleak.data.records import ROLES
from kdleak.data.sources import is_blank, read_file
from kdleak.data.templates import TAIL, prompt_text
from kdleak.inference.greedy import greedy_continuations
from kdleak.inference.scoring import token_statistics
from kdleak.memorization.verbatim import edit_similarity, rouge_l, token_accuracy
from kdleak.models.tokenizer import END_OF_TEXT, train_tokenizer
from tests.support.pipeline_project import ROOT
from tests.support.tiny_models import tiny_model

VOCABULARY = 300
ODD = (
    "### Response:",
    TAIL,
    "### Instruction:\nSay no more.",
    END_OF_TEXT,
    "</s><s>[INST] <|im_start|>",
    "\x00\x07\x1b[31m\x7f\x85",
    "\ud800 alone \udfff",
    "שלום ‮evil‬ مرحبا",
    "👩‍👩‍👧‍👦🏳️‍🌈",
    "é" + "̈" * 200,
    "\r\n\u2028\u2029\ufeff",
    "; DROP TABLE records; -- $(touch x) `y` {{z}} <script>",
    "NaN",
    "٣٤",
)
texts = st.one_of(
    st.text(st.characters(codec=None), max_size=60),
    st.sampled_from(ODD),
    st.builds("{}{}".format, st.sampled_from(ODD), st.text(max_size=10)),
    st.builds(lambda c, n: c * n, st.characters(), st.integers(1, 3000)),
)
records = st.fixed_dictionaries({"instruction": texts, "context": texts, "response": texts, "category": texts})


@pytest.fixture(scope="module")
def model():
    return tiny_model(layers=1, width=16, vocabulary=VOCABULARY, positions=160)


@pytest.fixture(scope="module")
def encoder():
    trained = train_tokenizer([prompt_text("Name a town.", "By the river."), "Alma lives in Trent."] * 9, VOCABULARY)
    return Encoder(trained, max_prompt_tokens=96, max_tokens=128)


def through(rows: list[dict], folder, model, encoder) -> int:
    """Send rows the whole way, but for those with an empty response, which are refused; returns their number."""
    path = folder / "rows.jsonl"
    kept, refused = [], 0
    for row in rows:
        path.write_text(json.dumps(row) + "\n")
        try:
            (found,) = read_file(path)
        except KdleakError as error:
            assert "empty" in str(error) and is_blank(row["response"])
            refused += 1
        else:
            kept.append(found.record)
    if not kept:
        return refused
    frame = pd.DataFrame({"record_id": r.record_id, **asdict(r)} for r in kept).drop_duplicates("record_id")
    frame["facts"] = [[] for _ in frame["facts"]]
    frame["role"] = [ROLES[i % len(ROLES)] for i in range(len(frame))]
    frame["group_id"] = group_ids(frame)
    write_parquet(frame, folder / "records.parquet")
    back = read_parquet(folder / "records.parquet")
    assert back[["instruction", "context", "response"]].equals(
        frame[["instruction", "context", "response"]].reset_index(drop=True)
    )
    report = run_checks(back, load_params(ROOT / "params.yaml"), None)
    assert report["n_records"] == len(back)
    encoded = encoder.encode_frame(back)
    eos = encoder.tokenizer.eos_token_id
    for record in encoded:
        assert eos not in record.prompt and eos not in record.response[: record.n_scored]
        assert encoder.tokenizer.decode(list(record.prompt)).endswith(TAIL)
    statistics = token_statistics(model, encoded, max_tokens=2048)
    assert np.isfinite(statistics.log_prob).all() and len(statistics) == len(back)
    scores = attack_scores(AttackInput(statistics, texts=list(back["response"])), ["loss", "zlib", "mink", "minkpp"])
    assert np.isfinite(scores["loss"]).all() and np.isfinite(scores["zlib"]).all()
    said = greedy_continuations(model, encoded, eos, 4, max_tokens=2048)
    accuracy = token_accuracy(said, encoded)
    assert ((accuracy >= 0) & (accuracy <= 1)).all()
    similarity = edit_similarity(said, encoded)
    assert ((similarity >= 0) & (similarity <= 1)).all()
    texts = [encoder.tokenizer.decode(r.response[: r.n_scored]) for r in encoded]
    assert set(rouge_l(texts, texts)[~np.isnan(rouge_l(texts, texts))]) <= {0.0, 1.0}  # 0: no word in it
    return len(rows)


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(records, min_size=12, max_size=25))
def test_a_record_s_text_is_never_structure(tmp_path_factory, model, encoder, rows):
    through(rows, tmp_path_factory.mktemp("rows"), model, encoder)


def test_every_odd_text_and_a_very_long_one_go_the_whole_way(tmp_path, model, encoder):
    odd = [*ODD, "long " * 20_000, "x"]
    rows = [{"instruction": a, "context": b, "response": a + "."} for a in odd for b in ("", a)]
    assert through(rows, tmp_path, model, encoder) == len(rows)


@pytest.mark.faults
def test_ten_thousand_hostile_records_go_the_whole_way(tmp_path, model, encoder):
    made: list[dict] = []

    @settings(max_examples=600, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(rows=st.lists(records, min_size=20, max_size=40))
    def collect(rows):
        made.extend(rows)

    collect()
    assert len(made) >= 10_000
    for start in range(0, len(made), 500):
        chunk = made[start : start + 500]
        assert through(chunk, tmp_path, model, encoder) == len(chunk)
