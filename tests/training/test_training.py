"""The one training loop: it learns, it can be stopped anywhere, and padding does not change what it computes."""

import contextlib
import itertools

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from kdleak.data.batching import collate, epoch_batches, scoring_batches
from kdleak.data.encoding import EncodedRecord
from kdleak.inference.forward import response_logits
from kdleak.training.batch_sources import FixedBatches
from kdleak.training.finetune import as_language_modelling, cross_entropy
from kdleak.training.loop import Recipe, _decayed, learning_rate, train
from kdleak.training.resume import ResumeStore
from tests.support.counted import counted
from tests.support.tiny_models import tiny_model

EOS = 0


def record(i: int) -> EncodedRecord:
    generator = torch.Generator().manual_seed(i)
    length = int(torch.randint(3, 12, (1,), generator=generator))
    prompt, response = torch.randint(1, 50, (2, length), generator=generator).tolist()
    return EncodedRecord(str(i), tuple(prompt), (*response, EOS), n_scored=length)


RECORDS = [record(i) for i in range(13)]
RECIPE = Recipe(lr=3e-3, epochs=4, batch_size=4)
SOURCE = FixedBatches(RECORDS, 4, seed=1)


def model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_positions=64, n_embd=16, n_layer=2, n_head=2, resid_pdrop=0.1, embd_pdrop=0.1)
    )


def weights(m: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in m.parameters()]


def test_training_lowers_the_loss_and_reports_every_epoch():
    history = train(model(), SOURCE, cross_entropy, RECIPE, seed=1)
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4]
    assert history[-1]["loss"] < history[0]["loss"]
    assert all(entry["tokens"] == sum(len(r.response) for r in RECORDS) for entry in history)


def test_the_same_seed_gives_the_same_weights_to_the_bit():
    first, second = model(), model()
    assert train(first, SOURCE, cross_entropy, RECIPE, seed=1) == train(second, SOURCE, cross_entropy, RECIPE, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 3, 4, 5, 8, 11, 16])
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(tmp_path, stop):
    whole = model()
    history = train(whole, SOURCE, cross_entropy, RECIPE, seed=1)

    def interrupt(done: int) -> None:
        if done == stop + 1:
            raise Stopped

    store = ResumeStore(tmp_path / "state", key="run")
    with contextlib.suppress(Stopped):
        train(
            model(), SOURCE, cross_entropy, RECIPE, seed=1, resume=store, save_every_s=-1, progress=counted(interrupt)
        )
    resumed = model()
    assert train(resumed, SOURCE, cross_entropy, RECIPE, seed=1, resume=store, save_every_s=-1) == history
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))
    store.clear()
    assert not store.folder.exists()


def flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:100],
        lambda content: content[:-30],
        lambda content: flip(content, len(content) // 2),
        lambda content: flip(content, 40),
        lambda content: content.replace(b'"step": 16', b'"step": 12'),
        lambda content: b"[]",
        lambda content: b"",
    ],
)
def test_a_damaged_state_is_never_taken_up_and_the_training_begins_anew(tmp_path, caplog, damage):
    whole, m = model(), model()
    history = train(whole, SOURCE, cross_entropy, RECIPE, seed=1)
    store = ResumeStore(tmp_path / "state", key="run")
    train(model(), SOURCE, cross_entropy, RECIPE, seed=1, resume=store, save_every_s=-1)
    content = store.file.read_bytes()
    assert damage(content) != content
    store.file.write_bytes(damage(content))
    assert train(m, SOURCE, cross_entropy, RECIPE, seed=1, resume=store) == history
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(m), strict=True))
    assert "state: damaged (" in caplog.text and "begins anew" in caplog.text


def test_the_state_of_another_run_is_not_taken_up(tmp_path):
    m = model()
    store = ResumeStore(tmp_path / "state", key="run")
    train(m, SOURCE, cross_entropy, RECIPE, seed=1, resume=store, save_every_s=-1)
    fresh = torch.optim.AdamW(m.parameters())
    assert store.restore(m, fresh) is not None
    assert [store.folder.stat().st_mode & 0o777, store.file.stat().st_mode & 0o777] == [0o700, 0o600]  # its owner's
    assert ResumeStore(tmp_path / "state", key="other").restore(m, fresh) is None


def test_rate_warms_up_then_falls_to_its_minimum():
    rates = [learning_rate(step, 100, RECIPE) for step in range(101)]
    assert rates[:5] == pytest.approx([RECIPE.lr * (i + 1) / 5 for i in range(5)])
    assert max(rates) == pytest.approx(RECIPE.lr)
    assert rates[100] == pytest.approx(RECIPE.min_lr)
    assert all(a >= b for a, b in itertools.pairwise(rates[5:]))


def test_a_constant_schedule_stays_at_its_rate_after_warming_up():
    recipe = Recipe(lr=3e-3, epochs=4, batch_size=4, warmup=0.02, schedule="constant")
    assert [learning_rate(step, 100, recipe) for step in (0, 1, 2, 50, 99)] == pytest.approx([1.5e-3, *[3e-3] * 4])


def test_padding_and_batch_composition_change_no_prediction():
    m = model().eval()
    together = response_logits(m, collate(RECORDS, range(13), pad_id=7))
    alone = torch.cat([response_logits(m, collate(RECORDS, [i])) for i in range(13)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_predictions_equal_those_of_a_plain_forward_pass():
    m = model().eval()
    r = RECORDS[0]
    tokens = torch.tensor([r.prompt + r.response])
    plain = m(tokens).logits[0, len(r.prompt) - 1 : -1]
    torch.testing.assert_close(response_logits(m, collate([r], [0])), plain, rtol=0, atol=1e-5)


def test_an_epoch_meets_every_record_once_in_an_order_of_its_own():
    first, again, second = (epoch_batches(RECORDS, 4, seed=5, epoch=e) for e in (0, 0, 1))
    assert first == again != second
    assert sorted(i for batch in first for i in batch) == list(range(13))


def test_scoring_batches_cover_every_record_within_the_budget():
    batches = list(scoring_batches(RECORDS, max_tokens=40))
    assert sorted(i for batch in batches for i in batch) == list(range(13))
    for batch in batches:
        width = max(len(RECORDS[i].prompt) + len(RECORDS[i].response) for i in batch) - 1
        assert len(batch) == 1 or len(batch) * width <= 40


def test_language_modelling_puts_a_loss_on_every_token():
    r = RECORDS[0]
    lm = as_language_modelling(r, EOS)
    batch = collate([lm], [0])
    assert batch.targets.tolist() == [*r.prompt, *r.response]
    assert batch.input_ids.tolist() == [[EOS, *r.prompt, *r.response[:-1]]]


def test_weight_decay_is_on_matrices_alone():
    model = tiny_model()
    groups = _decayed(list(model.parameters()), 0.3)
    assert [g["weight_decay"] for g in groups] == [0.3, 0.0]
    assert all(p.ndim > 1 for p in groups[0]["params"]) and all(p.ndim == 1 for p in groups[1]["params"])
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
