"""Canaries: random, distinct, of one format, and exposed as far as a model has seen them."""

from __future__ import annotations

import math
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kdleak.core.errors import KdleakError
from kdleak.data.canaries import SPACE, canary_table, planted_rows, secrets
from kdleak.data.encoding import Encoder
from kdleak.inference.scoring import token_statistics
from kdleak.memorization.exposure import CHANCE, exposure, extrapolated_exposure, log_perplexity, ranks
from kdleak.models.tokenizer import train_tokenizer
from tests.support.overfitted import overfit, uniform
from tests.support.tiny_models import tiny_model


def test_secrets_are_random_distinct_and_follow_from_the_seed():
    first = list(islice(secrets(7), 500))
    assert first == list(islice(secrets(7), 500))
    assert first[:100] == list(islice(secrets(7), 100))
    assert len({r.response for r in first}) == 500 and len({r.instruction for r in first}) == 1
    assert not {r.response for r in first} & {r.response for r in islice(secrets(8), 500)}
    digits = np.array([[int(d) for d in r.response if d.isdigit()] for r in first])
    assert digits.shape == (500, 6)
    assert stats.chisquare(np.bincount(digits.ravel(), minlength=10)).pvalue > 1e-3
    assert SPACE == 16 * 16 * 10**6


def test_a_table_plants_each_canary_as_often_as_it_says():
    table = canary_table(0, [1, 4, 16], each=3, references=20)
    assert table["repetitions"].value_counts().to_dict() == {0: 20, 1: 3, 4: 3, 16: 3}
    assert table["record_id"].is_unique
    rows = planted_rows(table)
    assert len(rows) == 3 * 21
    assert rows["record_id"].value_counts().to_dict() == {
        r.record_id: r.repetitions for r in table.itertuples() if r.repetitions
    }
    assert canary_table(0, [1, 4, 16], 3, 20).equals(table)


def test_more_references_move_no_canary():
    assert canary_table(0, [1, 4], 2, 50).head(14).equals(canary_table(0, [1, 4], 2, 10))


@pytest.mark.parametrize(
    "repetitions, each, references", [([1, 1], 2, 5), ([0, 1], 2, 5), ([1], 2, 0), ([1], SPACE, 1)]
)
def test_a_table_that_means_nothing_is_refused(repetitions, each, references):
    with pytest.raises(KdleakError, match="canaries"):
        canary_table(0, repetitions, each, references)


def test_exposure_by_hand():
    references = np.array([10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0])
    canaries = np.array([5.0, 15.0, 45.0, 80.0])
    assert ranks(canaries, references).tolist() == [1, 2, 5, 8]
    assert exposure(canaries, references).tolist() == pytest.approx([3, 2, 3 - math.log2(5), 0])
    # A tie with one reference: half a place down.
    assert ranks(np.array([10.0]), references).tolist() == [1.5]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.integers(0, 5))
@settings(deadline=None)
def test_the_rank_is_the_mean_over_orders_of_the_ties(references, canary):
    below, tied = sum(r < canary for r in references), references.count(canary)
    places = [below + 1 + i for i in range(tied + 1)]
    assert ranks(np.array([canary]), np.array(references))[0] == pytest.approx(np.mean(places))


def test_what_was_never_seen_is_exposed_as_chance_has_it():
    generator = np.random.default_rng(0)
    bits = exposure(generator.normal(size=4000), generator.normal(size=1023))
    # -log2 of a uniform: mean and standard deviation 1 / ln 2.
    assert abs(bits.mean() - CHANCE) < 4 * CHANCE / math.sqrt(4000) + 0.1
    assert abs(np.median(bits) - 1) < 0.1


def test_extrapolation_agrees_with_the_rank_where_the_rank_can_tell_and_goes_on_where_it_cannot():
    generator = np.random.default_rng(0)
    references = stats.skewnorm(3, 40, 5).rvs(1000, random_state=generator)
    canaries = np.quantile(references, [0.02, 0.1, 0.5, 0.9])
    assert extrapolated_exposure(canaries, references) == pytest.approx(exposure(canaries, references), abs=0.35)
    truth = stats.norm(40, 5)
    far = extrapolated_exposure(np.array([10.0, 5.0, -60.0]), truth.rvs(1000, random_state=generator))
    assert np.isfinite(far).all() and far[0] < far[1] < far[2]
    assert far[0] > math.log2(1001)
    assert np.isnan(extrapolated_exposure(np.array([1.0]), np.full(9, 2.0))).all()


@pytest.fixture(scope="module")
def planted():
    table = canary_table(0, [1], each=4, references=60)
    tokenizer = train_tokenizer(table["instruction"].tolist() + table["response"].tolist(), 300)
    encoder = Encoder(tokenizer, 120, 200)
    model = tiny_model(width=32, layers=2)
    model.resize_token_embeddings(len(tokenizer))
    # The prompt is one and the same: its last tokens are enough, and fit the tiny model's positions.
    records = [r.__class__(r.record_id, r.prompt[-8:], r.response, r.n_scored) for r in encoder.encode_frame(table)]
    return model, records


def bits(model, records) -> np.ndarray:
    return log_perplexity(token_statistics(model, records))


def test_a_canary_known_by_heart_has_the_greatest_exposure(planted):
    model, records = planted
    # Four canaries that share a prompt cannot all be certain: one is enough.
    found = bits(overfit(model, records[:1]), records)
    assert exposure(found[:1], found[4:]).tolist() == [math.log2(61)]
    assert exposure(found[1:4], found[4:]).max() < math.log2(61)


def test_a_uniform_model_exposes_no_canary(planted):
    model, records = planted
    words = {len(r.response) for r in records}
    found = bits(uniform(model), records)
    assert found == pytest.approx([r.n_scored * math.log2(model.config.vocab_size) for r in records], rel=1e-5)
    same = [i for i, r in enumerate(records) if len(r.response) == max(words)]
    # Secrets of as many tokens are all equally likely: in the middle of their kind, one bit.
    values = exposure(found[same[:1]].round(3), found[same[1:]].round(3))
    assert values[0] == pytest.approx(math.log2(len(same)) - math.log2(1 + (len(same) - 1) / 2))
