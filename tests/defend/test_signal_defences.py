"""What a defended teacher gives out, against plain formulas in float64: top-k, temperature, label alone, blends."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdleak.data.batching import collate
from kdleak.defend.defences import DEFENCES
from kdleak.distill.methods.minillm import MiniLLM
from kdleak.distill.minillm_rounds import score_rollouts
from kdleak.distill.teacher_signal import CachedTeacher, HiddenStateCache, LiveTeacher, cached_teacher
from kdleak.inference.forward import response_logits
from kdleak.inference.generation import Sampling, TeacherMixture, generate
from kdleak.models.checkpoints import load_model
from tests.support.defending import defended_project, student_of
from tests.support.distillation import encoded
from tests.support.tiny_models import random_records, tiny_model

RECORDS = random_records(6, longest=12)
LOGITS = torch.randn(7, 23, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
BASE = torch.randn(7, 23, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def softmax(logits: torch.Tensor) -> np.ndarray:
    x = np.exp(logits.numpy() - logits.numpy().max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def released(name: str, *logits: torch.Tensor, **knobs: object) -> np.ndarray:
    """Probabilities."""
    return softmax(DEFENCES[name](**knobs).release(None, None)(*logits))


@pytest.mark.parametrize("k", [1, 3, 23, 99])
def test_top_k_is_the_k_largest_probabilities_renormalised(k):
    p = softmax(LOGITS)
    kept = np.where(p >= np.sort(p, axis=-1)[:, [-min(k, 23)]], p, 0)
    np.testing.assert_allclose(released("top_k", LOGITS, k=k), kept / kept.sum(-1, keepdims=True), atol=1e-12)


def test_of_ties_top_k_keeps_k():
    assert (released("top_k", torch.zeros(2, 9), k=4) > 0).sum(-1).tolist() == [4, 4]


def test_temperature_is_a_power_of_the_distribution_and_can_be_undone():
    p = softmax(LOGITS)
    flat = released("temperature", LOGITS, temperature=4.0)
    power = p**0.25
    np.testing.assert_allclose(flat, power / power.sum(-1, keepdims=True), atol=1e-12)
    undone = flat**4
    np.testing.assert_allclose(undone / undone.sum(-1, keepdims=True), p, atol=1e-9)


def test_label_only_is_one_token_with_probability_one():
    found = released("label_only", LOGITS)
    assert np.array_equal(found, np.eye(23)[LOGITS.argmax(-1).numpy()])


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return defended_project(tmp_path_factory.mktemp("signal"))


def blend(project, **knobs: object):
    return DEFENCES["blend"](**knobs).release(project.base_teacher, project.model("teacher"))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_blend_is_the_mixture_of_two_distributions(share, project):
    expected = share * softmax(BASE) + (1 - share) * softmax(LOGITS)
    np.testing.assert_allclose(softmax(blend(project, base_share=share)(LOGITS, BASE)), expected, atol=1e-6)


def test_kept_shifts_are_those_that_add_most_to_the_divergence_from_the_base(project):
    p, b = softmax(LOGITS), softmax(BASE)
    influence = np.abs(p * np.log(p / b))
    for row, found in enumerate(softmax(blend(project, base_share=0.0, kept_shifts=3)(LOGITS, BASE))):
        kept = np.argsort(-influence[row])[:3]
        expected = b[row].copy()
        expected[kept] = p[row][kept]
        np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-6)
    all_kept = softmax(blend(project, base_share=0.0, kept_shifts=23)(LOGITS, BASE))
    np.testing.assert_allclose(all_kept, p, atol=1e-6)


def test_a_release_that_asks_the_base_too_is_heard_live_cached_and_by_rewards(project, tmp_path):
    teacher, base, records = (
        load_model(project.model("teacher")),
        load_model(project.base_teacher),
        encoded(project, "public"),
    )
    batch = collate(records, [2, 5, 6])
    with torch.no_grad():
        p, b = (response_logits(model, batch).double().softmax(-1) for model in (teacher, base))
    live = LiveTeacher(teacher, blend(project, base_share=0.25))
    cached = cached_teacher(live, "digest", records, HiddenStateCache(tmp_path), 100)
    assert isinstance(cached, CachedTeacher)
    for signal in (live, cached):
        found = signal.logits(signal.states(batch)).double().softmax(-1)
        torch.testing.assert_close(found, 0.25 * b + 0.75 * p, rtol=1e-4, atol=1e-6)
    scored = score_rollouts(load_model(project.base_student), live, records[:2], MiniLLM(), 100)
    assert all(np.isfinite(s.rewards).all() for s in scored)


def test_text_is_drawn_from_the_blend(project):
    teacher, base = load_model(project.model("teacher")), load_model(project.base_teacher)
    prompt = encoded(project, "public")[0].prompt
    with torch.no_grad():
        p, b = (model(torch.tensor([prompt])).logits[0, -1].double().softmax(-1) for model in (teacher, base))
    n = 3000
    expected = (0.5 * p + 0.5 * b).numpy() * n
    release = blend(project, base_share=0.5)
    prompts, streams = [prompt] * n, list(range(n))
    drawn = [
        generate(teacher, prompts, Sampling(1, 512), 0, streams, release=release),
        generate(tiny_like(base), prompts, Sampling(1, 512), 0, streams, TeacherMixture(teacher, 1.0, release)),
    ]
    assert drawn[0] == drawn[1]
    counts = np.bincount([tokens[0] for tokens in drawn[0]], minlength=len(p))
    common = expected > 20
    assert (np.abs(counts - expected)[common] < 5 * np.sqrt(expected[common])).all()


def tiny_like(model):
    """Another student over the same vocabulary."""
    return tiny_model(layers=1, vocabulary=model.config.vocab_size, positions=512)


def test_the_cache_of_states_knows_which_base_was_asked(project):
    release = blend(project, base_share=0.5)
    assert release.digest and release.digest in repr(release) and "GPT2" not in repr(release)
    student_of(project, "blend")
    before = len(list(project.hidden_states.iterdir()))
    student_of(project, "blend", base_share=0.1)
    assert len(list(project.hidden_states.iterdir())) == before
    student_of(project, "top_k")
    assert len(list(project.hidden_states.iterdir())) == before + 1


@pytest.mark.parametrize("method", ["kd", "rkl", "seqkd", "imitkd", "minillm"])
def test_every_kind_of_method_hears_what_is_released_alone(method, project):
    students = {name: student_of(project, name, method)[0] for name in ("none", "label_only", "blend")}
    assert len(set(students.values())) == 3
