"""Beam search against an exhaustive search and against that of Transformers."""

from __future__ import annotations

import itertools

import pytest
import torch

from kdleak.inference.generation import Sampling, TeacherMixture, generate
from tests.support.tiny_models import FAMILIES, tiny_model

EOS = 0
PROMPTS = [(3, 1, 4, 1, 5), (9, 2), (6, 5, 3, 5, 8, 9, 7), (9,), (3, 2, 3, 8, 4, 6, 2, 6)]


def searched(model, prompts, beams: int, most: int, **options) -> list[tuple[int, ...]]:
    sampling = Sampling(most, max_tokens=64, temperature=0.0, beams=beams, **options.pop("sampling", {}))
    return generate(model, prompts, sampling, EOS, **options)


@torch.no_grad()
def score(model, prompt: tuple[int, ...], response: tuple[int, ...]) -> float:
    """Σ log p of the response's tokens, float64."""
    logits = model(torch.tensor([prompt + response])).logits[0].double().log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(response) - 1)
    return sum(logits[place, token].item() for place, token in zip(places, response, strict=True))


def test_a_beam_that_keeps_everything_finds_the_likeliest_response_there_is():
    model, most = tiny_model(vocabulary=6, layers=1), 4
    others = range(1, 6)
    ended = [(*t, EOS) for n in range(most) for t in itertools.product(others, repeat=n)]
    responses = ended + list(itertools.product(others, repeat=most))
    prompts = [(1, 2, 3), (5,), (4, 4), (2, 1, 5, 3)]
    found = searched(model, prompts, beams=5**3, most=most)
    assert found == [max(responses, key=lambda r, p=p: score(model, p, r)) for p in prompts]
    assert len({len(r) for r in found}) > 1  # some end by themselves, some at the limit


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("beams", [2, 5])
def test_it_is_the_search_of_transformers_without_a_length_penalty(family, beams):
    model = tiny_model(family, vocabulary=12)
    found = searched(model, PROMPTS, beams, most=14)
    for prompt, response in zip(PROMPTS, found, strict=True):
        theirs = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            num_beams=beams,
            do_sample=False,
            length_penalty=0.0,
            early_stopping=False,
            max_new_tokens=14,
            eos_token_id=EOS,
            pad_token_id=EOS,
        )
        assert response == tuple(theirs[0, len(prompt) :].tolist())


def test_a_response_does_not_depend_on_the_prompts_beside_it():
    model = tiny_model(vocabulary=12)
    alone = [searched(model, [prompt], 3, most=10)[0] for prompt in PROMPTS]
    assert searched(model, PROMPTS, 3, most=10, sampling={"batch_size": 7}) == alone
    assert searched(model, PROMPTS, 3, most=10) == alone


def test_the_search_is_of_what_the_model_releases_and_keeps_to_its_room():
    model = tiny_model(vocabulary=12)

    def without_end(logits):
        return logits.index_fill(-1, torch.tensor([EOS, 7]), -torch.inf)

    found = searched(model, PROMPTS, 3, most=10, release=without_end)
    assert all(len(r) == 10 and not {EOS, 7} & set(r) for r in found)
    short = generate(model, PROMPTS, Sampling(10, max_tokens=9, temperature=0.0, beams=3), EOS, release=without_end)
    assert [len(r) for r in short] == [4, 7, 2, 8, 1]


def test_a_beam_search_of_a_mixture_or_of_samples_is_refused():
    model, how = tiny_model(vocabulary=12), Sampling(4, temperature=0.0, beams=2)
    with pytest.raises(ValueError, match="one model, at temperature 0"):
        generate(model, PROMPTS, how, EOS, mixture=TeacherMixture(model, 0.2))
    with pytest.raises(ValueError, match="one model, at temperature 0"):
        generate(model, PROMPTS, Sampling(4, beams=2), EOS, streams=range(5))
