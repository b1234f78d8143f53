"""(n, p)-discoverable extraction against sampling, and extraction of facts."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdleak.data.encoding import EncodedRecord, Encoder
from kdleak.data.synthetic import generate
from kdleak.inference.scoring import token_statistics
from kdleak.memorization.extraction import (
    FactSpan,
    discoverable,
    fact_extraction,
    fact_spans,
    prefix_log_probability,
    span_sums,
)
from kdleak.models.tokenizer import train_tokenizer
from tests.support.overfitted import overfit, uniform
from tests.support.tiny_models import VOCABULARY, random_records, tiny_model

DRAWS = 20_000


def test_the_probability_is_the_share_of_samples_that_contain_the_sequence():
    model = tiny_model(width=8, layers=1)
    prompt = (3, 1, 4)
    with torch.no_grad():
        first = model(torch.tensor([prompt])).logits[0, -1].softmax(-1)
        a = int(first.argmax())
        b = int(model(torch.tensor([[*prompt, a]])).logits[0, -1].argmax())
    record = EncodedRecord("r", prompt, (a, b, 7, 0), 3)
    log_p = prefix_log_probability(token_statistics(model, [record]), k=2)
    torch.manual_seed(0)
    samples = model.generate(
        torch.tensor([prompt]), do_sample=True, top_k=0, max_new_tokens=2, num_return_sequences=DRAWS, pad_token_id=0
    )
    frequency = (samples[:, 3:] == torch.tensor([a, b])).all(1).double().mean().item()
    p = math.exp(log_p[0])
    assert 0.005 < p < 0.9
    assert abs(frequency - p) < 4 * math.sqrt(p * (1 - p) / DRAWS)


@pytest.mark.parametrize("n", [1, 4, 25])
def test_the_chance_to_extract_is_that_of_an_experiment(n):
    generator = np.random.default_rng(0)
    p_z = np.array([0.001, 0.02, 0.1, 0.3, 0.9])
    extracted = (generator.random((DRAWS, n, len(p_z))) < p_z).any(1).mean(0)
    error = 4 * np.sqrt(extracted * (1 - extracted) / DRAWS) + 1e-9
    low, high = np.clip(extracted - error, 1e-12, 1 - 1e-12), np.clip(extracted + error, 1e-12, 1 - 1e-12)
    for i, log_p in enumerate(np.log(p_z)):
        assert discoverable(np.array([log_p]), n, low[i]).all()
        assert not discoverable(np.array([log_p]), n, high[i]).any() or high[i] == 1 - 1e-12


def test_the_certain_is_always_found_and_the_impossible_never():
    assert discoverable(np.array([0.0, -800.0]), 1e300, 0.9).tolist() == [True, False]
    assert [discoverable(np.log([0.5]), n, 0.7).item() for n in (1, 2)] == [False, True]


def test_a_uniform_model_needs_as_many_samples_as_there_are_sequences():
    records = random_records(10)
    log_p = prefix_log_probability(token_statistics(uniform(tiny_model()), records), k=32)
    lengths = np.array([min(32, r.n_scored) for r in records])
    assert log_p == pytest.approx(-lengths * math.log(VOCABULARY), rel=1e-5)


def test_an_overfitted_model_gives_each_record_in_a_sample_or_two():
    records = [r for r in random_records(14) if r.n_scored >= 8][:5]
    log_p = prefix_log_probability(token_statistics(overfit(tiny_model(), records), records), k=32)
    assert (log_p > 32 * math.log(0.95)).all()
    assert discoverable(log_p, 20, 0.9).all()


def test_a_prefix_is_the_response_alone_and_no_longer_than_it_is():
    records = random_records(12)
    statistics = token_statistics(tiny_model(), records)
    log_p = prefix_log_probability(statistics, k=5)
    for i, value in enumerate(log_p):
        own = statistics.log_prob[statistics.offsets[i] : statistics.offsets[i + 1]]
        assert value == pytest.approx(own[:5].astype(float).sum(), rel=1e-6)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), max_size=6))
@settings(deadline=None)
def test_span_sums_are_those_of_slices(spans):
    values = np.arange(15.0) ** 2
    starts, lengths = (np.array([s[i] for s in spans], dtype=np.int64) for i in (0, 1))
    assert span_sums(values, starts, lengths).tolist() == [values[a : a + n].sum() for a, n in spans]


@pytest.fixture(scope="module")
def corpus():
    made = list(generate(140, seed=3))
    frame = pd.DataFrame(
        {
            "record_id": [r.record_id for r in made],
            "instruction": [r.instruction for r in made],
            "context": [r.context for r in made],
            "response": [r.response for r in made],
            "facts": [[{"kind": f.kind, "value": f.value} for f in r.facts] for r in made],
        }
    )
    tokenizer = train_tokenizer(frame["response"] + frame["context"], 400)
    encoder = Encoder(tokenizer, 256, 512)
    return frame, encoder, encoder.encode_with_spans(frame)


def test_every_fact_of_the_corpus_is_found_in_its_tokens(corpus):
    frame, encoder, encoded = corpus
    tokenizer, records = encoder.tokenizer, encoded.records
    spans = fact_spans(frame, encoded, encoder)
    stated = [(i, fact) for i, facts in enumerate(frame["facts"]) for fact in facts]
    assert len(spans) == len(stated) > 100
    for span, (i, fact) in zip(spans, stated, strict=True):
        assert (span.record, span.kind) == (i, fact["kind"])
        text = tokenizer.decode(records[i].response[span.start : span.stop])
        assert fact["value"] in text and len(text) <= len(fact["value"]) + 12
        without = tokenizer.decode(records[i].response[: span.start])
        assert frame["response"][i].startswith(without) and fact["value"] not in without
        assert span.in_prompt == (fact["value"].lower() in (frame["context"][i] + frame["instruction"][i]).lower())
    assert {s.in_prompt for s in spans} == {True, False}


def test_a_fact_that_truncation_cut_is_left_out(corpus):
    frame, encoder, _ = corpus
    short = encoder.encode_with_spans(frame)
    cut = [EncodedRecord(r.record_id, r.prompt, r.response[:6], min(6, r.n_scored)) for r in short.records]
    spans = fact_spans(frame, replace(short, records=cut), encoder)
    assert all(s.stop <= 6 for s in spans)
    assert len(spans) < len(fact_spans(frame, short, encoder))


def test_extraction_of_a_fact_is_that_of_its_span_alone():
    records = random_records(8)
    model = tiny_model()
    statistics = token_statistics(model, records)
    right = ~statistics.missed
    spans = [FactSpan(i, "phone", r.n_scored // 2, r.n_scored, False) for i, r in enumerate(records)]
    extracted, log_p = fact_extraction(spans, statistics, right)
    for span, hit, value in zip(spans, extracted, log_p, strict=True):
        record = records[span.record]
        given = (*record.prompt, *record.response[: span.start])
        fact = record.response[span.start : span.stop]
        with torch.no_grad():
            ids = torch.tensor([[*given, *fact]])
            log_probs = model(ids).logits[0, len(given) - 1 : -1].log_softmax(-1)
            said = model.generate(torch.tensor([given]), do_sample=False, max_new_tokens=len(fact), pad_token_id=0)[
                0, len(given) :
            ]
        assert hit == (said.tolist() == list(fact))
        assert value == pytest.approx(log_probs[range(len(fact)), list(fact)].sum().item(), rel=1e-4)


def test_an_overfitted_model_gives_back_every_fact():
    records = [r for r in random_records(14) if r.n_scored >= 8][:5]
    statistics = token_statistics(overfit(tiny_model(), records), records)
    spans = [FactSpan(i, "date", 3, 8, False) for i in range(5)]
    extracted, log_p = fact_extraction(spans, statistics, ~statistics.missed)
    assert extracted.all() and (np.exp(log_p) > 0.95**5).all()
