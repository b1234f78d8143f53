"""A cached teacher says what the live one says, and the cache can be trusted, moved and deleted."""

from __future__ import annotations

import os

import pytest
import torch

from kdleak.data.batching import collate
from kdleak.distill.divergences import DIVERGENCES
from kdleak.distill.matching import matching_objective
from kdleak.distill.teacher_signal import CachedTeacher, HiddenStateCache, LiveTeacher, cached_teacher
from kdleak.inference.forward import response_logits
from kdleak.training.batch_sources import DistillationBatch
from tests.support.architectures import model_of
from tests.support.tiny_models import FAMILIES, random_records, tiny_model

RECORDS = random_records(11)


@pytest.fixture
def cache(tmp_path) -> HiddenStateCache:
    return HiddenStateCache(tmp_path / "hidden")


class Forbidden(LiveTeacher):
    def states(self, batch):
        raise AssertionError("the teacher was asked")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cached_teacher_equals_the_live_one(family, cache):
    teacher = tiny_model(family).double()
    signal = cached_teacher(LiveTeacher(teacher), "digest", RECORDS, cache, batch_tokens=100)
    live = LiveTeacher(teacher)
    for indices in ([0], [3, 1, 7], range(11)):
        batch = collate(RECORDS, indices)
        torch.testing.assert_close(signal.states(batch), live.states(batch), rtol=1e-6, atol=1e-6)
        logits = signal.logits(signal.states(batch))
        torch.testing.assert_close(logits, response_logits(teacher, batch), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", sorted(DIVERGENCES))
def test_every_divergence_is_the_same_by_cache_and_live(name, cache):
    teacher, student, batch = tiny_model("llama"), tiny_model(), collate(RECORDS, [2, 5, 6])
    losses = [
        matching_objective(signal, DIVERGENCES[name])(student, batch)
        for signal in (cached_teacher(LiveTeacher(teacher), "digest", RECORDS, cache, 100), LiveTeacher(teacher))
    ]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=1e-6)


def test_padding_changes_no_loss():
    objective = matching_objective(LiveTeacher(tiny_model("llama")), DIVERGENCES["fkl"])
    student = tiny_model()
    together = objective(student, collate(RECORDS, range(11), pad_id=5))
    alone = [(objective(student, collate(RECORDS, [i])), len(r.response)) for i, r in enumerate(RECORDS)]
    mean = sum(loss * n for loss, n in alone) / sum(n for _, n in alone)
    torch.testing.assert_close(together, mean, rtol=1e-5, atol=1e-6)


def test_what_a_student_wrote_is_put_to_the_live_teacher(cache):
    teacher = tiny_model()
    signal = cached_teacher(LiveTeacher(teacher), "digest", RECORDS, cache, 100)
    other = random_records(3, seed=5)
    batch = DistillationBatch(**vars(collate(other, range(3))), written_by_student=True)
    torch.testing.assert_close(signal.states(batch), LiveTeacher(teacher).states(batch))


def test_the_second_run_asks_no_teacher(cache):
    teacher = tiny_model()
    first = cached_teacher(LiveTeacher(teacher), "digest", RECORDS, cache, 100)
    hidden = torch.cat(first._hidden)
    again = CachedTeacher(Forbidden(teacher), next(iter(cache_entries(cache))), [len(r.response) for r in RECORDS])
    assert torch.equal(torch.cat(again._hidden), hidden)
    assert torch.equal(again.states(collate(RECORDS, [4])), first.states(collate(RECORDS, [4])))


def cache_entries(cache: HiddenStateCache):
    return [cache.get(path.stem) for path in sorted(cache.folder.iterdir())]


def test_another_teacher_and_other_records_have_entries_of_their_own(cache):
    teacher = tiny_model()
    for digest, records in (("a", RECORDS), ("b", RECORDS), ("a", RECORDS[:5]), ("a", RECORDS)):
        cached_teacher(LiveTeacher(teacher), digest, records, cache, 100)
    assert len(list(cache.folder.iterdir())) == 3


@pytest.mark.parametrize("damage", ["cut", "flipped", "renamed"])
def test_a_damaged_entry_is_computed_again(cache, damage):
    teacher = tiny_model()
    cached_teacher(LiveTeacher(teacher), "digest", RECORDS, cache, 100)
    (path,) = cache.folder.iterdir()
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        path.rename(path.with_name("0" * 64 + ".safetensors"))
        assert cache.get("0" * 64) is None
    signal = cached_teacher(LiveTeacher(teacher), "digest", RECORDS, cache, 100)
    batch = collate(RECORDS, [0, 1])
    torch.testing.assert_close(signal.states(batch), LiveTeacher(teacher).states(batch))
    assert path.read_bytes() == content


def test_the_cache_stays_within_its_bound_by_dropping_what_was_not_used(tmp_path):
    cache = HiddenStateCache(tmp_path / "hidden", max_bytes=11_500)
    for age, key in enumerate("abcd"):
        cache.put(key, torch.randn(600))
        os.utime(cache.folder / f"{key}.safetensors", (age, age))
        assert sum(p.stat().st_size for p in cache.folder.iterdir()) <= 11_500
    assert cache.get("a") is not None  # used now: the last to go
    cache.put("e", torch.randn(600))
    assert [key for key in "abcde" if cache.get(key) is not None] == ["a", "c", "d", "e"]


def test_what_would_outgrow_the_cache_is_asked_live(tmp_path):
    signal = cached_teacher(
        LiveTeacher(tiny_model()), "digest", RECORDS, HiddenStateCache(tmp_path / "hidden", 1000), 100
    )
    assert isinstance(signal, LiveTeacher)
    assert not (tmp_path / "hidden").exists()


def test_hidden_states_keep_the_teachers_precision(cache):
    teacher = tiny_model().to(torch.bfloat16)
    signal = cached_teacher(LiveTeacher(teacher), "digest", RECORDS, cache, 100)
    assert signal.states(collate(RECORDS, [0])).dtype == torch.bfloat16


@pytest.mark.parametrize(("student", "teacher"), [("granite", "gemma2"), ("cohere", "granite")])
def test_both_sides_of_a_divergence_are_the_models_own_logits(student, teacher):
    """What such models do after their heads (a divisor, a factor, a cap) is in the loss."""
    student, teacher, batch = model_of(student), model_of(teacher, seed=1), collate(RECORDS, range(5))
    own = [m(batch.input_ids).logits.flatten(0, 1)[batch.positions] for m in (student, teacher)]
    expected = DIVERGENCES["rkl"](own[0], own[1].detach()).mean()
    found = matching_objective(LiveTeacher(teacher), DIVERGENCES["rkl"])(student, batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
