"""Whose words a step trains on: shares, the replay buffer, DistiLLM's scheduler, and what a resumed run needs."""

from __future__ import annotations

import contextlib
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdleak.data.encoding import EncodedRecord
from kdleak.distill.divergences import forward_kl
from kdleak.distill.matching import matching_objective
from kdleak.distill.methods.distillm import AdaptiveShare
from kdleak.distill.rollouts import (
    ConstantShare,
    Origin,
    ReplayBuffer,
    RolloutBatches,
    Rollouts,
)
from kdleak.distill.teacher_signal import LiveTeacher
from kdleak.inference.generation import Sampling
from kdleak.training.batch_sources import DistillationBatch, FixedBatches, WithCorpus
from kdleak.training.finetune import with_corpus_loss
from kdleak.training.loop import Recipe, train
from kdleak.training.resume import ResumeStore
from tests.support.counted import counted
from tests.support.tiny_models import random_records, tiny_model

RECORDS = random_records(12, longest=10)
FIXED = FixedBatches(RECORDS, 4, seed=1)
SAMPLING = Sampling(max_new_tokens=6, max_tokens=128)


def word(step: int) -> int:
    return 1 + step % 96


class Scribe:
    """Writes the word of the step instead of a response."""

    seed = 7

    def write(self, model, records, step):
        return [EncodedRecord(f"{step}/{r.record_id}", r.prompt, (word(step), 0), 1) for r in records]


def batches(share, steps: int, buffer=None, fixed=FIXED, **options) -> list[DistillationBatch]:
    source = RolloutBatches(fixed, share, Scribe(), steps=3 * -(-steps // 3), buffer=buffer, **options)
    return [source.batch(None, step) for step in range(steps)]


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
def test_the_share_of_student_text_is_alpha(alpha):
    made = batches(ConstantShare(alpha), 2000)
    share = sum(b.written_by_student for b in made) / 2000
    assert share == alpha if alpha in (0, 1) else abs(share - alpha) < 0.04


def test_a_fixed_step_has_the_references_and_a_student_step_the_students_words_for_the_same_prompts():
    for step, batch in enumerate(batches(ConstantShare(0.5), 60)):
        reference = FIXED.batch(None, step)
        if batch.written_by_student:
            assert set(batch.targets.tolist()) == {0, word(step)}
            first = RECORDS[FIXED.indices(step)[0]].prompt
            assert tuple(batch.input_ids[0, : len(first)].tolist()) == first
        else:
            assert torch.equal(batch.targets, reference.targets) and batch.indices == reference.indices


def test_imitkd_trains_on_what_it_draws_from_the_buffer():
    buffer = ReplayBuffer(1000)
    made = batches(ConstantShare(1.0, through_buffer=True), 30, buffer)
    assert len(buffer) == 120
    written_at = [set(b.targets.tolist()) - {0} for b in made]
    assert all(max(steps) <= word(step) for step, steps in enumerate(written_at) if steps)
    assert any(len(steps) > 1 for steps in written_at)


@given(st.integers(1, 20), st.lists(st.integers(0, 15), max_size=12))
@settings(max_examples=50, deadline=None)
def test_the_buffer_keeps_the_latest_and_never_exceeds_its_capacity(capacity, sizes):
    buffer, added = ReplayBuffer(capacity), []
    for size in sizes:
        new = [EncodedRecord(str(len(added) + i), (1,), (2, 0), 1) for i in range(size)]
        buffer.add(new, step=len(added))
        added += new
        assert len(buffer) == min(capacity, len(added))
    drawn = buffer.sample(5, seed=3)
    assert len(drawn) == len(set(drawn)) == min(5, len(buffer))
    assert {record for _, record in drawn} <= set(added[-capacity:])
    restored = ReplayBuffer(capacity)
    restored.restore(json.loads(json.dumps(buffer.state())))
    assert restored.sample(capacity, 1) == buffer.sample(capacity, 1)


def adaptive(losses: list[float], **options: float) -> tuple[AdaptiveShare, list[float]]:
    share = AdaptiveShare(lambda _: losses.pop(0), **options)
    share.begin(None)
    return share, [share.end_epoch(None)["threshold"] for _ in range(len(losses))]


def test_distillms_threshold_rises_when_the_validation_loss_does_and_only_then():
    assert adaptive([2.0, 1.9, 1.5, 1.2])[1] == [0, 0, 0]
    assert adaptive([2.0, 2.05, 2.09])[1] == [0, 0]  # within the tolerance
    assert adaptive([2.0, 2.2, 2.25, 2.4])[1] == pytest.approx([0.1, 0.1, 0.2])
    assert adaptive([2.0, 1.5, 1.7])[1] == [0, 0]  # over the best, but not over the start
    assert adaptive([2.0, 1.9, 1.85], tolerance=-0.1)[1] == pytest.approx([0.1, 0.2])  # an improvement is asked for
    assert adaptive([2.0, 1.9, 1.7], tolerance=-0.1)[1] == pytest.approx([0.1, 0.1])
    assert adaptive([float(i) for i in range(30)])[0].threshold == 1.0


def test_distillm_begins_with_the_references_and_goes_from_fresh_rollouts_to_replayed_ones():
    share, _ = adaptive([1.0])
    assert {share.origin(r / 100, 0.0) for r in range(100)} == {Origin.FIXED}
    share.threshold = 0.6
    for progress in (0.0, 0.5, 1.0):
        origins = [share.origin((r + 0.5) / 100, progress) for r in range(100)]
        assert origins.count(Origin.FRESH) == round(60 * (1 - progress))
        assert origins.count(Origin.REPLAYED) == round(60 * progress)


def test_nothing_is_replayed_before_the_buffer_is_full():
    share, _ = adaptive([1.0])
    share.threshold = 1.0
    share.begin = lambda model: None
    made = batches(share, 300, ReplayBuffer(10_000))
    assert all(set(b.targets.tolist()) - {0} == {word(step)} for step, b in enumerate(made))
    buffer = ReplayBuffer(40)
    made = batches(share, 300, buffer)
    assert all(b.written_by_student for b in made)
    fresh = [set(b.targets.tolist()) - {0} == {word(step)} for step, b in enumerate(made)]
    assert all(fresh[:10]) and 100 < sum(fresh) < 200
    assert len(buffer) == 40


def test_the_published_code_never_distils_the_first_token():
    whole, cut = batches(ConstantShare(1.0), 3), batches(ConstantShare(1.0), 3, drop_first_token=True)
    for a, b in zip(whole, cut, strict=True):
        assert b.targets.tolist() == [0] * 4
        assert set(b.positions.tolist()) < set(a.positions.tolist())
    (reference,) = batches(ConstantShare(0.0), 1, drop_first_token=True)
    assert len(reference.targets) == len(FIXED.batch(None, 0).targets)


def test_the_same_seed_writes_the_same_text_and_another_step_another():
    model, rollouts = tiny_model(), Rollouts(SAMPLING, 0, seed=3)
    first = rollouts.write(model, RECORDS, step=5)
    assert first == rollouts.write(model, RECORDS, step=5) != rollouts.write(model, RECORDS, step=6)
    assert first[::-1] == rollouts.write(model, RECORDS[::-1], step=5)
    for record, source in zip(first, RECORDS, strict=True):
        assert (record.record_id, record.prompt) == (source.record_id, source.prompt)
        assert record.n_scored == len(record.response) - (record.response[-1] == 0)


def test_a_corpus_stands_beside_every_batch_and_starts_again_when_used_up():
    corpus = FixedBatches(random_records(5, seed=9, longest=6), 2, seed=4)
    source = WithCorpus(FIXED, corpus)
    beside = [source.batch(None, step).to("cpu").corpus for step in range(6)]
    for epoch in (beside[:3], beside[3:]):
        assert sorted(i for batch in epoch for i in batch.indices) == list(range(5))
    assert torch.equal(source.batch(None, 2).targets, FIXED.batch(None, 2).targets)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_an_on_policy_run_that_was_stopped_ends_as_if_it_had_not_been(tmp_path, stop):
    objective = with_corpus_loss(matching_objective(LiveTeacher(tiny_model("llama", seed=9)), forward_kl), 0.5)
    recipe = Recipe(lr=3e-3, epochs=2, batch_size=4)

    def source():
        share = AdaptiveShare(lambda model: next(model.parameters()).sum().item())
        share.threshold = 0.9
        rollouts = RolloutBatches(FIXED, share, Rollouts(SAMPLING, 0, seed=3), 6, ReplayBuffer(6))
        return WithCorpus(rollouts, FixedBatches(RECORDS, 3, seed=8))

    def interrupt(done: int) -> None:
        if done == stop + 1:
            raise Stopped

    whole, resumed = tiny_model(), tiny_model()
    history = train(whole, source(), objective, recipe, seed=1)
    assert {"student_written", "validation_loss", "threshold"} < set(history[0])
    store = ResumeStore(tmp_path / "state", key="run")
    with contextlib.suppress(Stopped):
        train(
            tiny_model(),
            source(),
            objective,
            recipe,
            seed=1,
            resume=store,
            save_every_s=-1,
            progress=counted(interrupt),
        )
    assert train(resumed, source(), objective, recipe, seed=1, resume=store, save_every_s=-1) == history
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
