"""Continuations that begin with what scoring has shown are those of `generate`, token for token."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdleak.core.errors import KdleakError
from kdleak.data.encoding import EncodedRecord
from kdleak.inference import greedy
from kdleak.inference.decoding import AS_PUBLISHED, PLAIN, Ban, Decoding
from kdleak.inference.greedy import (
    ENDED,
    continuations_under,
    correct_prefix,
    greedy_continuations,
    known_starts,
)
from kdleak.inference.scoring import token_statistics
from kdleak.inference.shared_prefix import common_prefix, shared_prefixes
from tests.support.overfitted import overfit, uniform
from tests.support.tiny_models import FAMILIES, VOCABULARY, random_records, tiny_model

EOS = 0
K = 32
TEMPLATE = tuple(range(1, 24))


def by_generate(model, records, k: int = K, batch_size: int = 16, **options) -> np.ndarray:
    """`model.generate(do_sample=False)` on left-padded batches with pad = eos; ENDED from EOS on."""
    tokens = []
    for start in range(0, len(records), batch_size):
        rows = records[start : start + batch_size]
        width = max(len(r.prompt) for r in rows)
        ids = torch.tensor([[EOS] * (width - len(r.prompt)) + list(r.prompt) for r in rows])
        mask = torch.tensor([[0] * (width - len(r.prompt)) + [1] * len(r.prompt) for r in rows])
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=k, pad_token_id=EOS, **options
            )
        out = torch.nn.functional.pad(out[:, width:], (0, k - out.shape[1] + width), value=EOS)
        tokens.append(out.masked_fill((out == EOS).cumsum(1) > 0, ENDED))
    return torch.cat(tokens).numpy()


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request):
    """A model that knows some records by heart, and others in part; and all of them, prompts from 1 to 60 tokens."""
    records = random_records(40)
    records += [replace(r, prompt=(*TEMPLATE, *r.prompt)) for r in random_records(12, seed=1, longest=36)]
    model = overfit(tiny_model(request.param), records[:6] + records[40:42])
    known = by_generate(model, records)
    # Responses that agree with the model for some tokens and then do not: divergence at every depth.
    for i in range(6, 38):
        text = known[i][known[i] != ENDED].tolist()[: i - 6]
        records[i] = replace(
            records[i], response=(*text, *records[i].response), n_scored=len(text) + records[i].n_scored
        )
    return model, records


def test_continuations_are_those_of_generate(trained):
    model, records = trained
    found = greedy_continuations(model, records, EOS, K)
    assert np.array_equal(found, by_generate(model, records))
    prefix = correct_prefix(found, records)
    assert all(prefix[i] == min(K, records[i].n_scored) for i in [*range(6), 40, 41])
    assert len(set(prefix.tolist())) > 10
    assert (found == ENDED).any(1).sum() > 10
    assert (found != ENDED).all(1).any()


@pytest.mark.parametrize("decoding", [AS_PUBLISHED, Decoding(no_repeat_ngram=2), Decoding(suppress_eos=True)])
def test_continuations_under_rules_are_those_of_generate(trained, decoding):
    model, records = trained[0], trained[1][::2]
    options = {"no_repeat_ngram_size": decoding.no_repeat_ngram} if decoding.no_repeat_ngram else {}
    options |= {"min_new_tokens": K} if decoding.suppress_eos else {}
    expected = by_generate(model, records, **options)
    plain = greedy_continuations(model, records, EOS, K)
    assert not np.array_equal(expected, plain)
    assert np.array_equal(greedy_continuations(model, records, EOS, K, decoding=decoding), expected)


def test_decodings_together_are_each_what_they_are_alone(trained):
    model, records = trained[0], trained[1][::2]
    decodings = [PLAIN, Decoding(3, suppress_eos=True), Decoding(no_repeat_ngram=2), Decoding(suppress_eos=True)]
    alone = [greedy_continuations(model, records, EOS, K, decoding=decoding) for decoding in decodings]
    assert len({each.tobytes() for each in alone}) == len(decodings)
    known = known_starts(token_statistics(model, records), records)
    for start, max_tokens in ((None, 1), (known, 300), ([()] * len(records), 4096)):
        together = continuations_under(decodings, model, records, EOS, K, known=start, max_tokens=max_tokens)
        assert np.array_equal(together, alone)
    backwards = continuations_under(decodings[::-1], model, records, EOS, K, known=known)
    assert np.array_equal(backwards, alone[::-1])


def test_what_a_teacher_forced_pass_knows_is_how_the_continuation_begins(trained):
    model, records = trained
    plain = greedy_continuations(model, records, EOS, K).tolist()
    starts = known_starts(token_statistics(model, records), records)
    assert len({len(start) for start in starts}) > 10
    for start, record, row in zip(starts, records, plain, strict=True):
        text = [*row[: row.index(ENDED)], EOS] if ENDED in row else row
        assert list(start[: len(text)]) == text[: len(start)]
        right = common_prefix(row, record.response[: record.n_scored])
        assert len(start) > right or right == record.n_scored
    statistics = replace(token_statistics(model, records), argmax=None)
    for start, longer, record in zip(known_starts(statistics, records), starts, records, strict=True):
        assert start == longer[: common_prefix(longer, record.response[: record.n_scored])]


def test_neither_responses_nor_batches_change_the_result(trained):
    model, records = trained[0], trained[1][::3]
    expected = greedy_continuations(model, records, EOS, K)
    generator = np.random.default_rng(0)
    other = [replace(r, response=tuple(generator.integers(1, VOCABULARY, 9).tolist()), n_scored=9) for r in records]
    assert np.array_equal(greedy_continuations(model, other, EOS, K), expected)
    for max_tokens in (1, 300):
        assert np.array_equal(greedy_continuations(model, records, EOS, K, max_tokens=max_tokens), expected)
    backwards = greedy_continuations(model, records[::-1], EOS, K)[::-1]
    assert np.array_equal(backwards, expected)


@pytest.mark.parametrize("k", [1, 2, 9, 50])
def test_any_number_of_tokens_can_be_asked_for(trained, k):
    model, records = trained[0], trained[1][::3]
    assert np.array_equal(greedy_continuations(model, records, EOS, k), by_generate(model, records, k))


def test_a_reproduced_record_needs_no_decoding(trained, monkeypatch):
    model, records = trained
    known = [r for r in records[:6] if r.response[-1] == EOS or r.n_scored >= K]
    monkeypatch.setattr(greedy, "continue_batch", None)
    found = greedy_continuations(model, known, EOS, K, known=[r.response for r in known])
    assert [row[row != ENDED].tolist() for row in found] == [list(r.response[: r.n_scored][:K]) for r in known]


def test_exact_ties_go_to_the_lower_token_as_in_generate():
    model, records = uniform(tiny_model()), random_records(5)
    assert np.array_equal(greedy_continuations(model, records, EOS, 4), by_generate(model, records, 4))
    allowed = greedy_continuations(model, records, EOS, 4, decoding=Decoding(suppress_eos=True))
    assert (allowed == 1).all()


def test_progress_counts_every_record_once(trained):
    model, records = trained
    done: list[int] = []
    greedy_continuations(model, records, EOS, K, max_tokens=300, progress=done.append)
    assert sum(done) == len(records) and len(done) > 3
    both: list[int] = []
    continuations_under([PLAIN, AS_PUBLISHED], model, records, EOS, K, max_tokens=300, progress=both.append)
    assert sum(both) == 2 * len(records)


def test_the_model_keeps_its_mode_and_no_records_are_no_error():
    model = tiny_model().train()
    assert greedy_continuations(model, random_records(2), EOS, 3).shape == (2, 3)
    assert model.training
    assert greedy_continuations(model, [], EOS, 3).shape == (0, 3)


def test_a_prompt_that_leaves_no_room_is_refused():
    record = EncodedRecord("0123456789abcdef", tuple([1] * 100), (1, EOS), 1)
    with pytest.raises(KdleakError, match=r"record 0123456789ab: .*128 positions"):
        greedy_continuations(tiny_model(), [record], EOS, 30)
    assert greedy_continuations(tiny_model(), [record], EOS, 29).shape == (1, 29)


tokens = st.lists(st.integers(0, 3), max_size=12)


@given(prompt=tokens, draft=tokens, n=st.integers(1, 4))
@settings(deadline=None)
def test_a_ban_forbids_exactly_the_tokens_that_would_repeat_an_ngram(prompt, draft, n):
    def repeats(sequence: list[int]) -> bool:
        grams = [tuple(sequence[i : i + n]) for i in range(len(sequence) - n + 1)]
        return bool(grams) and grams[-1] in grams[:-1]

    decoding = Decoding(no_repeat_ngram=n)
    for i in range(len(draft) + 1):
        before = prompt + draft[:i]
        assert set(Ban(decoding, before, EOS).tokens()) == {token for token in range(4) if repeats([*before, token])}
    allowed = len(Ban(decoding, prompt, EOS).allowed_prefix(draft))
    assert not any(repeats(prompt + draft[: i + 1]) for i in range(allowed))
    assert allowed == len(draft) or repeats(prompt + draft[: allowed + 1])


@given(prompts=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=8), max_size=8))
@settings(deadline=None)
def test_shared_prefixes_are_shared_and_leave_a_token_to_read(prompts):
    groups = shared_prefixes(prompts, shortest=3)
    assert sorted(i for _, members in groups for i in members) == list(range(len(prompts)))
    for prefix, members in groups:
        assert all(prompts[i][: len(prefix)] == list(prefix) and len(prompts[i]) > len(prefix) for i in members)


def test_the_template_is_read_once():
    prompts = [(*TEMPLATE, 50 + i) for i in range(4)] + [(90, 91)] * 3
    assert shared_prefixes(prompts) == [(TEMPLATE, [0, 1, 2, 3]), ((), [4, 5, 6])]
