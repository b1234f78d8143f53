"""Gradient accumulation is exact: a batch in parts gives the gradient of the batch, for every objective."""

import pytest
import torch

from kdleak.data.batching import collate, select_rows
from kdleak.data.encoding import EncodedRecord
from kdleak.distill.divergences import DIVERGENCES
from kdleak.distill.matching import matching_objective
from kdleak.distill.minillm import PolicyBatch, policy_objective
from kdleak.distill.rollouts import without_first_tokens
from kdleak.distill.teacher_signal import CachedTeacher, LiveTeacher, teacher_hidden_states
from kdleak.training.batch_sources import DistillationBatch, FixedBatches
from kdleak.training.finetune import cross_entropy, with_corpus_loss
from kdleak.training.loop import Recipe, train
from kdleak.training.micro_batches import micro_batches
from tests.models.test_families import params
from tests.support.tiny_models import random_records, tiny_model

RECORDS, CORPUS = random_records(9, seed=2), random_records(5, seed=3)
TEACHER = tiny_model("llama", seed=4).requires_grad_(False)
BOUND = 90


def policy_batch() -> PolicyBatch:
    batch = collate(RECORDS, range(9))
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(len(batch.targets), generator=generator) for _ in range(3)]
    columns = {"log_probs": drawn[0] - 4, "importance": drawn[1].abs(), "advantages": drawn[2]}
    return PolicyBatch(**vars(batch), written_by_student=True, corpus=collate(CORPUS, range(5)), **columns)


def fixed_batch(corpus: bool = True) -> DistillationBatch:
    chosen = [4, 0, 7, 2, 8, 1]
    return DistillationBatch(**vars(collate(RECORDS, chosen)), corpus=collate(CORPUS, range(5)) if corpus else None)


def gradient(objective, batches, model) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    losses = [objective(model, batch) for batch in batches]
    for loss in losses:
        loss.backward()
    return sum(loss.item() for loss in losses), [p.grad.clone() for p in model.parameters()]


def assert_parts_add_up(objective, batch, bound: int = BOUND) -> None:
    model, parts = tiny_model("gpt2", seed=1), micro_batches(batch, bound)
    assert len(parts) > 2
    whole, expected = gradient(objective, [batch], model)
    loss, found = gradient(objective, parts, model)
    assert loss == pytest.approx(whole, rel=1e-5)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * max(1.0, b.abs().max().item()))


@pytest.mark.parametrize("loss", sorted(DIVERGENCES))
def test_the_parts_of_a_divergence_add_up_with_a_live_and_with_a_cached_teacher(loss):
    live = LiveTeacher(TEACHER)
    cached = CachedTeacher(live, teacher_hidden_states(live, RECORDS, 400), [len(r.response) for r in RECORDS])
    for signal in (live, cached):
        assert_parts_add_up(with_corpus_loss(matching_objective(signal, DIVERGENCES[loss]), 0.5), fixed_batch())


def test_the_parts_of_the_policy_loss_add_up():
    assert_parts_add_up(with_corpus_loss(policy_objective(LiveTeacher(TEACHER), 0.2), 0.5), policy_batch())


def test_the_parts_of_cross_entropy_add_up():
    assert_parts_add_up(cross_entropy, collate(RECORDS, range(9)))
    assert_parts_add_up(with_corpus_loss(cross_entropy, 2.0), fixed_batch())


def test_parts_hold_every_row_once_within_the_bound_and_a_longer_row_alone():
    for bound in (1, BOUND, 200):
        parts = micro_batches(fixed_batch(), bound)
        assert sorted(i for p in parts for i in p.indices) == [0, 1, 2, 4, 7, 8]
        assert sorted(i for p in parts if p.corpus for i in p.corpus.indices) == [0, 1, 2, 3, 4]
        for part in parts:
            ids = part.corpus.input_ids if part.corpus else part.input_ids
            assert ids.numel() <= bound or len(ids) == 1
            assert not (part.corpus and len(part.input_ids))


def test_a_batch_within_the_bound_is_left_as_it_is():
    batch = fixed_batch()
    assert micro_batches(batch, None)[0] is batch and micro_batches(batch, 10_000)[0] is batch


def test_a_row_that_is_selected_is_the_row_that_was_there():
    batch = policy_batch()
    part = select_rows(select_rows(batch, [5, 1, 3]), [2, 0])
    assert part.indices == (3, 5) and part.whole == len(batch.targets)
    alone = collate(RECORDS, [3, 5])
    for name in ("input_ids", "positions", "targets", "rows", "scored"):
        torch.testing.assert_close(getattr(part, name), getattr(alone, name))
    kept = torch.cat([(batch.rows == row).nonzero()[:, 0] for row in (3, 5)])
    torch.testing.assert_close(part.advantages, batch.advantages[kept])


def test_rows_that_have_lost_their_only_target_cost_and_change_nothing():
    short = EncodedRecord("short", (3, 4, 5), (6,), 1)
    batch = without_first_tokens(collate([*RECORDS, short], range(10)))
    assert 9 not in batch.rows
    assert_parts_add_up(cross_entropy, batch)


@pytest.mark.parametrize("bound", [1, 100, 10_000])
def test_a_training_in_micro_batches_is_the_same_training(bound):
    def trained(**options):
        model = tiny_model("llama", seed=1)
        recipe = Recipe(lr=1e-3, epochs=2, batch_size=4, **options)
        return model, train(model, FixedBatches(RECORDS, 4, seed=1), cross_entropy, recipe, seed=1)

    (whole, expected), (parts, found) = trained(), trained(micro_batch_tokens=bound)
    for a, b in zip(found, expected, strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    for a, b in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5)
    assert (found == expected) == (bound == 10_000)


def test_micro_batches_are_a_parameter_and_off_by_default():
    assert params().compute.micro_batch_tokens is None
    assert params(**{"compute.micro_batch_tokens": 512}).compute.micro_batch_tokens == 512
