"""Generation: what it says is what a plain loop over one prompt would say, whatever stands beside it."""

from __future__ import annotations

import pytest
import torch

from kdleak.core.errors import KdleakError
from kdleak.inference.generation import Sampling, TeacherMixture, generate
from tests.support.tiny_models import FAMILIES, VOCABULARY, random_records, tiny_model

PROMPTS = [r.prompt for r in random_records(13)]
STREAMS = list(range(100, 113))
GREEDY = Sampling(max_new_tokens=12, max_tokens=128, temperature=0.0)
SAMPLED = Sampling(max_new_tokens=12, max_tokens=128, temperature=1.0)
DRAWS = 3_000
NEVER = VOCABULARY  # an id that no model says


def plain_greedy(model, prompt, limit: int, eos: int) -> tuple[int, ...]:
    tokens = list(prompt)
    for _ in range(limit):
        with torch.no_grad():
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
        if tokens[-1] == eos:
            break
    return tuple(tokens[len(prompt) :])


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_decoding_is_that_of_a_plain_loop_for_prompts_of_any_length(family):
    model = tiny_model(family)
    plain = [plain_greedy(model, p, 12, NEVER) for p in PROMPTS]
    assert generate(model, PROMPTS, GREEDY, NEVER) == plain
    # Whichever word ends a text ends its own row there, and no other row.
    for eos in sorted({word for response in plain for word in response}):
        ended = [r[: r.index(eos) + 1] if eos in r else r for r in plain]
        assert generate(model, PROMPTS, GREEDY, eos) == ended


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_do_not_depend_on_batch_composition(family):
    model = tiny_model(family)
    together = generate(model, PROMPTS, SAMPLED, 0, STREAMS)
    assert together == generate(model, PROMPTS, Sampling(12, 128, batch_size=4), 0, STREAMS)
    backwards = generate(model, PROMPTS[::-1], SAMPLED, 0, STREAMS[::-1])
    assert together == backwards[::-1]
    alone = [generate(model, [p], SAMPLED, 0, [s])[0] for p, s in zip(PROMPTS, STREAMS, strict=True)]
    assert together == alone


def test_the_stream_decides_and_nothing_else_is_random():
    model = tiny_model()
    before = torch.get_rng_state()
    first = generate(model, PROMPTS, SAMPLED, 0, STREAMS)
    torch.manual_seed(5)
    assert first == generate(model, PROMPTS, SAMPLED, 0, STREAMS)
    assert first != generate(model, PROMPTS, SAMPLED, 0, STREAMS[::-1])
    torch.set_rng_state(before)
    with pytest.raises(ValueError, match="random stream"):
        generate(model, PROMPTS, SAMPLED, 0)


def first_tokens(model, draws: int, **options) -> torch.Tensor:
    prompt = PROMPTS[0]
    said = generate(model, [prompt] * draws, Sampling(1, 128, batch_size=4096), NEVER, list(range(draws)), **options)
    return torch.bincount(torch.tensor([s[0] for s in said]), minlength=VOCABULARY) / draws


def is_sample_of(frequencies: torch.Tensor, probs: torch.Tensor) -> bool:
    """Within five standard errors everywhere."""
    return bool(((frequencies - probs).abs() < 5 * (probs * (1 - probs) / DRAWS).sqrt() + 1 / DRAWS).all())


def next_word(model) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([PROMPTS[0]])).logits[0, -1].softmax(-1)


def test_tokens_are_drawn_from_the_models_distribution():
    model = tiny_model(width=8, layers=1)
    assert is_sample_of(first_tokens(model, DRAWS), next_word(model))


def test_the_mixed_sampler_draws_from_the_mixture_of_student_and_teacher():
    student, teacher = tiny_model(width=8, layers=1), tiny_model("llama", seed=3)
    mixed = 0.8 * next_word(student) + 0.2 * next_word(teacher)
    drawn = first_tokens(student, DRAWS, mixture=TeacherMixture(teacher, 0.2))
    assert is_sample_of(drawn, mixed)
    assert not is_sample_of(drawn, next_word(student))


def test_a_mixture_without_teacher_or_without_student_is_the_other():
    student, teacher = tiny_model(), tiny_model("llama", seed=3)
    for share, alone in ((0.0, student), (1.0, teacher)):
        mixed = generate(student, PROMPTS, SAMPLED, 0, STREAMS, TeacherMixture(teacher, share))
        assert mixed == generate(alone, PROMPTS, SAMPLED, 0, STREAMS)


def test_responses_keep_within_both_limits():
    model = tiny_model()
    prompts = [tuple(range(1, n + 1)) for n in (2, 10, 29, 30, 31)]
    said = generate(model, prompts, Sampling(8, max_tokens=30, temperature=0.0), NEVER)
    assert [len(s) for s in said] == [8, 8, 1, 0, 0]
    assert generate(model, [], GREEDY, 0) == []


def test_a_row_that_ended_at_the_last_position_waits_for_the_others():
    model = tiny_model()
    prompts = [tuple(i % 97 for i in range(124)), *PROMPTS[:9]]
    said = generate(model, prompts, Sampling(40, max_tokens=128, temperature=0.0), NEVER)
    assert said == [plain_greedy(model, p, min(40, 128 - len(p)), NEVER) for p in prompts]


def test_a_model_with_too_few_positions_is_refused():
    with pytest.raises(KdleakError, match=r"128 positions; lower model\.max_tokens"):
        generate(tiny_model(), [tuple(range(1, 91))], Sampling(100, max_tokens=512, temperature=0.0), 0)


def test_generation_leaves_the_model_in_the_mode_it_was_in():
    model = tiny_model().train()
    generate(model, PROMPTS[:2], GREEDY, 0)
    assert model.training
    model(torch.tensor([PROMPTS[0]])).logits.sum().backward()
