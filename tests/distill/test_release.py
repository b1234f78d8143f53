"""What a teacher releases instead of its logits is what all that asks it gets: the k likeliest tokens, as example."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from kdleak.core.paths import Project
from kdleak.data.batching import collate
from kdleak.data.encoding import EncodedRecord
from kdleak.distill.divergences import DIVERGENCES
from kdleak.distill.matching import matching_objective
from kdleak.distill.methods.minillm import MiniLLM
from kdleak.distill.minillm_rounds import score_rollouts
from kdleak.distill.rollouts import Rollouts
from kdleak.distill.teacher_signal import CachedTeacher, HiddenStateCache, LiveTeacher, cached_teacher
from kdleak.inference.forward import response_logits
from kdleak.inference.generation import Sampling, TeacherMixture, generate
from kdleak.inference.release import identity, release_name
from kdleak.models.checkpoints import load_model
from kdleak.pipeline.text import write_training_text
from tests.support.distillation import encoded, params, untrained
from tests.support.tiny_models import random_records, tiny_model

RECORDS = random_records(9, longest=12)


@dataclass(frozen=True)
class TopK:
    """The softmax over the `k` likeliest tokens, at `temperature`."""

    k: int
    temperature: float = 1.0

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        least = logits.topk(self.k, dim=-1).values[..., -1:]
        return (logits / self.temperature).masked_fill(logits < least, -torch.inf)


@pytest.fixture(scope="module")
def teacher():
    return tiny_model("llama", seed=4)


def test_the_default_releases_the_models_own_logits(teacher):
    signal, batch = LiveTeacher(teacher), collate(RECORDS, range(9))
    assert torch.equal(signal.logits(signal.states(batch)), response_logits(teacher, batch))
    assert signal.release is identity


def test_a_release_renormalises_over_its_own_support(teacher):
    batch = collate(RECORDS, range(9))
    signal = LiveTeacher(teacher, TopK(3, temperature=2.0))
    probs = signal.logits(signal.states(batch)).softmax(-1)
    assert ((probs > 0).sum(-1) == 3).all()
    torch.testing.assert_close(probs.sum(-1), torch.ones(len(probs)))
    top = response_logits(teacher, batch).div(2).softmax(-1).topk(3, dim=-1).values.detach()
    torch.testing.assert_close(probs.topk(3, dim=-1).values, top / top.sum(-1, keepdim=True))


@pytest.mark.parametrize("name", sorted(DIVERGENCES))
def test_every_divergence_is_to_what_is_released_live_and_cached(name, teacher, tmp_path):
    student, batch, release = tiny_model(seed=1), collate(RECORDS, [2, 5, 6]), TopK(5)
    live = LiveTeacher(teacher, release)
    released = release(response_logits(teacher, batch).detach())
    expected = DIVERGENCES[name](response_logits(student, batch), released).mean()
    cached = cached_teacher(live, "digest", RECORDS, HiddenStateCache(tmp_path), 100)
    assert isinstance(cached, CachedTeacher)
    for signal in (live, cached):
        loss = matching_objective(signal, DIVERGENCES[name])(student, batch)
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
        loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in student.parameters())


def test_the_cache_does_not_depend_on_the_release(teacher, tmp_path):
    cache = HiddenStateCache(tmp_path)
    for release in (identity, TopK(3), TopK(5)):
        cached_teacher(LiveTeacher(teacher, release), "digest", RECORDS, cache, 100)
    assert len(list(tmp_path.iterdir())) == 1


def test_minillms_rewards_and_weights_are_those_of_what_is_released(teacher):
    student, options, release = tiny_model(seed=1), MiniLLM(), TopK(5)
    scored = score_rollouts(student, LiveTeacher(teacher, release), RECORDS, options, 100)
    left_out = 0
    for s, record in zip(scored, RECORDS, strict=True):
        batch = collate([record], [0])
        log_p = -F.cross_entropy(release(response_logits(teacher, batch)), batch.targets, reduction="none").detach()
        log_q = torch.tensor(s.log_probs)
        expected = ((log_p - log_q) / options.reward_scale).clamp(-options.reward_clip, options.reward_clip)
        torch.testing.assert_close(torch.tensor(s.rewards), expected, rtol=1e-3, atol=1e-3)
        absent = log_p == -torch.inf
        left_out += int(absent.sum())
        weights = torch.tensor(s.importance)[absent]
        torch.testing.assert_close(weights, torch.full_like(weights, 1 / (1 - options.teacher_share)))
    assert left_out


def test_the_mixture_samples_nothing_that_is_not_released(teacher):
    student, sampling, release = tiny_model(seed=1), Sampling(1, 128), TopK(2)
    prompt = RECORDS[0].prompt
    with torch.no_grad():
        logits = teacher(torch.tensor([prompt])).logits[0, -1]
    prompts, streams = [prompt] * 400, list(range(400))
    drawn = generate(student, prompts, sampling, 0, streams, TeacherMixture(teacher, 1.0, release))
    assert {tokens[0] for tokens in drawn} == set(logits.topk(2).indices.tolist())
    whole = generate(student, prompts, sampling, 0, streams, TeacherMixture(teacher, 1.0))
    assert len({tokens[0] for tokens in whole}) > 2
    alone = generate(teacher, prompts, sampling, 0, streams, release=release)
    assert alone == drawn


def test_the_text_that_a_teacher_writes_is_drawn_from_what_it_releases(tmp_path):
    project: Project = untrained(tmp_path)
    write_training_text("seqkd", params(), project, TopK(2))
    table = pd.read_parquet(project.training_text("seqkd"))
    responses = dict(zip(table["record_id"], table["tokens"], strict=True))
    public = encoded(project, "public")
    written = [EncodedRecord(r.record_id, r.prompt, tuple(responses[r.record_id].tolist()), 0) for r in public]
    batch = collate(written, range(len(written)))
    with torch.no_grad():
        top = response_logits(load_model(project.model("teacher")), batch).topk(2).indices
    assert (top == batch.targets[:, None]).any(-1).float().mean() > 0.99  # but for ties of rounding


def test_a_release_is_called_by_its_settings():
    assert (release_name(identity), release_name(TopK(3))) == ("identity", "TopK(k=3, temperature=1.0)")
    assert Rollouts(Sampling(4), 0, 1).release is identity
