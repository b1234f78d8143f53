"""Claims on records put otherwise: what changes is what should, and nothing else."""

from dataclasses import replace

import pandas as pd
import pytest

from kdleak.attacks.variants import argmax_texts, lowercased, prefixed
from kdleak.data.encoding import Encoder
from kdleak.inference.scoring import token_statistics
from kdleak.models.tokenizer import train_tokenizer
from tests.support.tiny_models import random_records, tiny_model


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["Ada Lovelace wrote the first program.", "### Response:\n"] * 3, 300)


def test_a_prefix_stands_before_the_prompt_and_the_response_is_untouched():
    records, shots = random_records(10), random_records(4, seed=2, longest=8)
    placed = prefixed(records, shots, max_prefix=20, max_positions=512)
    for before, after in zip(records, placed, strict=True):
        prefix = after.prompt[: len(after.prompt) - len(before.prompt)]
        assert after.prompt == prefix + before.prompt
        assert 0 < len(prefix) <= 20 and prefix[: shots[0].n_scored] == shots[0].response[: shots[0].n_scored]
        assert (after.response, after.n_scored, after.record_id) == (before.response, before.n_scored, before.record_id)


def test_a_prefix_is_bare_texts_of_up_to_twelve_shots():
    """As the authors join them: no template, no end-of-text token, nothing between; later ones are left out."""
    records, shots = random_records(3), random_records(20, seed=3, longest=6)
    (first, *_) = prefixed(records, shots, max_prefix=500, max_positions=1024)
    expected = [token for shot in shots[:12] for token in shot.response[: shot.n_scored]]
    assert list(first.prompt) == expected + list(records[0].prompt)
    assert 0 not in first.prompt[: len(expected)]  # the end-of-text token of these records


def test_a_shot_that_is_too_long_is_passed_over():
    records, (long, *short) = random_records(1), sorted(random_records(6, seed=4), key=lambda r: -r.n_scored)
    (placed,) = prefixed(records, [long, *short], max_prefix=long.n_scored - 1, max_positions=1024)
    assert placed.prompt[: short[0].n_scored] == short[0].response[: short[0].n_scored]


def test_a_prefix_gives_way_to_the_record_not_the_record_to_it():
    records, shots = random_records(20, longest=40), random_records(6, seed=2)
    longest = max(len(r.prompt) + len(r.response) for r in records)
    placed = prefixed(records, shots, max_prefix=60, max_positions=longest)
    assert max(len(r.prompt) + len(r.response) for r in placed) <= longest
    assert any(a.prompt == b.prompt for a, b in zip(placed, records, strict=True))


def test_lower_case_changes_the_response_alone(tokenizer):
    frame = pd.DataFrame(
        {"record_id": ["a"], "instruction": ["Who is Ada?"], "context": [""], "response": ["Ada WROTE"]}
    )
    encoder = Encoder(tokenizer)
    (before,), (after,) = encoder.encode_frame(frame), lowercased(encoder, frame)
    assert after.prompt == before.prompt and after.record_id == before.record_id
    assert tokenizer.decode(after.response[: after.n_scored]) == "ada wrote"
    assert frame["response"][0] == "Ada WROTE"


def test_argmax_texts_spell_the_greedy_choices(tokenizer):
    records = random_records(5)
    statistics = token_statistics(tiny_model(), records)
    expected = [
        tokenizer.decode(statistics.argmax[a:b].tolist())
        for a, b in zip(statistics.offsets[:-1], statistics.offsets[1:], strict=True)
    ]
    assert argmax_texts(tokenizer, statistics) == expected and len(set(expected)) > 1
    assert argmax_texts(tokenizer, replace(statistics, argmax=None)) == []
