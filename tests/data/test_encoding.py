"""The template's tail survives truncation, and a record's text is data, never structure."""

from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kdleak.core.errors import KdleakError
from kdleak.data.encoding import Encoder, first_id
from kdleak.data.templates import TAIL, prompt_text
from kdleak.models.tokenizer import END_OF_TEXT, train_tokenizer
from tests.support.standalone_models import sentencepiece_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    texts = [prompt_text("Name a town near the river.", "The river is long."), "Alma lives in Trent."] * 20
    return train_tokenizer(texts, vocab_size=400)


@settings(max_examples=200, deadline=None)
@given(instruction=st.text(max_size=400), context=st.text(max_size=400), response=st.text(min_size=1, max_size=200))
@example(instruction="a" * 400, context="", response="\n\nand then")
def test_any_text_is_encoded_within_the_limits_and_keeps_the_tail(tokenizer, instruction, context, response):
    encoded = Encoder(tokenizer, max_prompt_tokens=96, max_tokens=160).encode("id", instruction, context, response)
    assert len(encoded.prompt) <= 96
    assert len(encoded.prompt) + len(encoded.response) <= 160
    read = tokenizer.decode([*encoded.prompt, *encoded.response[: encoded.n_scored]])
    start = response.encode("utf-8", "replace").decode()[:1]
    if "\ufffd" not in read:  # a response cut within a character
        assert TAIL + start in read
    if start.strip():  # no token crosses the border
        assert tokenizer.decode(list(encoded.prompt)).endswith(TAIL)
    assert 1 <= encoded.n_scored <= len(encoded.response)


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=80))
@example("\n\nand then")
def test_without_truncation_the_record_decodes_to_itself(tokenizer, response):
    encoded = Encoder(tokenizer).encode("id", "Say it.", "", response)
    replaced = response.encode("utf-8", "replace").decode()
    text = [*encoded.prompt, *encoded.response[: encoded.n_scored]]
    assert tokenizer.decode(text) == prompt_text("Say it.", "") + replaced
    if response[0].strip():  # no token crosses the border
        assert tokenizer.decode(list(encoded.response[: encoded.n_scored])) == replaced


def test_a_special_token_inside_a_record_is_plain_text(tokenizer):
    encoded = Encoder(tokenizer).encode("id", f"a {END_OF_TEXT} b", "", f"c {END_OF_TEXT} d")
    eos = tokenizer.eos_token_id
    assert eos not in encoded.prompt
    assert encoded.response.count(eos) == 1
    assert encoded.response[-1] == eos


def test_eos_is_trained_on_but_not_scored(tokenizer):
    encoded = Encoder(tokenizer).encode("id", "a", "", "b c d")
    assert encoded.n_scored == len(encoded.response) - 1


def test_a_cut_response_has_no_eos(tokenizer):
    encoded = Encoder(tokenizer, max_prompt_tokens=64, max_tokens=100).encode("id", "a", "", "word " * 200)
    assert tokenizer.eos_token_id not in encoded.response
    assert encoded.n_scored == len(encoded.response)


def test_prompts_follow_the_template_with_and_without_input():
    assert prompt_text("Do it.", "").endswith("### Instruction:\nDo it.\n\n### Response:\n")
    assert "### Input:" not in prompt_text("Do it.", "")
    assert prompt_text("Do it.", "Here.").endswith("### Instruction:\nDo it.\n\n### Input:\nHere.\n\n### Response:\n")


def test_a_limit_below_the_tail_is_an_error(tokenizer):
    with pytest.raises(KdleakError, match="has no room for the template's tail"):
        Encoder(tokenizer, max_prompt_tokens=2, max_tokens=9).encode("id", "a", "", "b")


@pytest.mark.parametrize("context", ["", "The river is long."])
def test_the_introduction_is_a_prefix_of_every_prompt(tokenizer, context):
    encoder = Encoder(tokenizer)
    length = encoder.introduction_length(context)
    first, second = (encoder.encode("id", instruction, context, "b").prompt for instruction in ("Go.", "Stay here."))
    assert first[:length] == second[:length]
    assert tokenizer.decode(list(first[length:])).startswith("\n\n### Instruction:\nGo.")


def test_a_response_has_the_tokens_that_it_has_in_the_text_as_a_whole():
    texts = [prompt_text("Name a town near the river.", ""), "Alma lives in Trent. Alma lives in Trent, Ada too."]
    tokenizer = sentencepiece_tokenizer(texts * 9)
    encoder = Encoder(tokenizer)
    record = encoder.encode("id", "Name a town near the river.", "", "Alma lives in Trent.")
    text = texts[0] + "Alma lives in Trent."
    assert list(record.prompt + record.response) == tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]
    apart = tokenizer("Alma lives in Trent.", add_special_tokens=False)["input_ids"]
    assert list(record.response[: record.n_scored]) != apart  # apart, its start is marked as that of a text
    assert encoder.starts_with_bos and record.prompt[0] == tokenizer.bos_token_id
    spans = encoder.encode_with_spans(
        pd.DataFrame(
            [{"record_id": "id", "instruction": "Name it.", "context": "", "response": "Alma lives in Trent."}]
        )
    ).spans[0]
    assert spans[0, 0] <= 0 and spans[-1, 1] == len("Alma lives in Trent.")


def test_a_text_without_a_prompt_follows_bos_or_eos_where_there_is_none():
    tokenizer = SimpleNamespace(bos_token_id=1, eos_token_id=2)
    assert first_id(tokenizer) == 1 and first_id(SimpleNamespace(bos_token_id=None, eos_token_id=2)) == 2


def test_a_first_token_counts_within_the_limit_of_a_prompt():
    texts = [prompt_text("Name a town near the river.", ""), "Alma lives in Trent."]
    encoder = Encoder(sentencepiece_tokenizer(texts * 9), max_prompt_tokens=64, max_tokens=80)
    record = encoder.encode("id", "town " * 200, "", "Alma lives in Trent.")
    assert len(record.prompt) == 64 and record.prompt[0] == encoder.tokenizer.bos_token_id
    assert encoder.tokenizer.decode(record.prompt).endswith(TAIL)
