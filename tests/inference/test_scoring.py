"""Claims on token statistics: right, and independent of everything but the record and the model."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdleak.inference import scoring
from kdleak.inference.scoring import logit_statistics, token_statistics
from tests.support.tiny_models import FAMILIES, random_records, tiny_model

COLUMNS = ("log_prob", "mean", "std", "missed", "argmax")


def reference(model, record):
    """The definitions, in float64, one record alone without padding, token by token."""
    tokens = torch.tensor([record.prompt + record.response])
    with torch.no_grad():
        logits = model(tokens).logits[0].double().numpy()
    rows = []
    for t in range(record.n_scored):
        z = logits[len(record.prompt) - 1 + t]
        log_p = z - z.max() - np.log(np.exp(z - z.max()).sum())
        p, target = np.exp(log_p), record.response[t]
        mean = (p * log_p).sum()
        std = np.sqrt((p * (log_p - mean) ** 2).sum())
        rows.append((log_p[target], mean, std, log_p.argmax() != target, log_p.argmax()))
    return np.array(rows).T


@pytest.mark.parametrize("family", FAMILIES)
def test_statistics_equal_their_float64_reference(family):
    model, records = tiny_model(family), random_records(15)
    found = token_statistics(model, records, max_tokens=200)
    expected = np.concatenate([reference(model, r) for r in records], axis=1)
    assert found.record_ids.tolist() == [r.record_id for r in records]
    assert found.lengths.tolist() == [r.n_scored for r in records]
    for name, column in zip(COLUMNS, expected, strict=True):
        np.testing.assert_allclose(getattr(found, name), column, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_statistics_do_not_depend_on_batch_size_padding_or_order(family):
    model, records = tiny_model(family), random_records(30)
    alone = token_statistics(model, records, max_tokens=1)
    together = token_statistics(model, records, max_tokens=100_000)
    order = np.random.default_rng(1).permutation(len(records))
    shuffled = token_statistics(model, [records[i] for i in order], max_tokens=300)
    for name in COLUMNS:
        np.testing.assert_allclose(getattr(alone, name), getattr(together, name), rtol=1e-5, atol=1e-5, err_msg=name)
        pieces = np.split(getattr(shuffled, name), shuffled.offsets[1:-1])
        restored = np.concatenate([pieces[i] for i in np.argsort(order)])
        np.testing.assert_allclose(getattr(alone, name), restored, rtol=1e-5, atol=1e-5, err_msg=name)


def test_chunks_of_the_head_change_nothing(monkeypatch):
    model, records = tiny_model(), random_records(20)
    whole = token_statistics(model, records)
    monkeypatch.setattr(scoring, "CHUNK_BYTES", 4)
    monkeypatch.setattr(scoring, "_MIN_CHUNK_ROWS", 3)
    pieces = token_statistics(model, records)
    for name in COLUMNS:
        np.testing.assert_allclose(getattr(whole, name), getattr(pieces, name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("logits", [[60.0, 0.0, -60.0], [0.0, 0.0, 0.0], [-3e4, 3e4, 0.0], [1e-3, 0.0, -1e-3]])
def test_extreme_logits_stay_finite_and_right(logits):
    z = np.array(logits, np.float32).astype(np.float64)
    log_p = z - z.max() - np.log(np.exp(z - z.max()).sum())
    mean = (np.exp(log_p) * log_p).sum()
    std = np.sqrt((np.exp(log_p) * (log_p - mean) ** 2).sum())
    found = logit_statistics(torch.tensor([logits]), torch.tensor([2]))
    expected = (log_p[2], mean, std, log_p.argmax() != 2, log_p.argmax())
    for value, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(value.item(), right, rtol=1e-5, atol=1e-6)


def test_a_narrow_spread_far_below_a_peak_keeps_its_digits():
    """One word at probability .001 and the rest nearly flat: a raw second moment in fp32 loses this spread."""
    log_p = np.log(np.concatenate([[1e-3], np.full(5000, (1 - 1e-3) / 5000)]))
    z = (log_p - log_p.max()).astype(np.float32)
    p = np.exp(z.astype(np.float64)) / np.exp(z.astype(np.float64)).sum()
    std = np.sqrt((p * (z - (p * z).sum()) ** 2).sum())
    found = logit_statistics(torch.tensor(z)[None], torch.tensor([1]))
    np.testing.assert_allclose(found[2].item(), std, rtol=1e-5)


def test_scoring_leaves_the_model_as_it_was_and_reports_progress():
    model, records, seen = tiny_model().train(), random_records(10), []
    token_statistics(model, records, max_tokens=100, progress=seen.append)
    assert model.training and sum(seen) == len(records) and len(seen) > 1


def test_no_records_give_empty_statistics():
    assert len(token_statistics(tiny_model(), [])) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_template_that_is_read_once_changes_no_score(family):
    model, plain = tiny_model(family), random_records(12)
    template = tuple(range(1, 21))
    records = [replace(r, prompt=template + r.prompt) if i % 4 else r for i, r in enumerate(plain)]
    together = token_statistics(model, records, max_tokens=300)
    alone = [token_statistics(model, [r]) for r in records]
    assert np.array_equal(together.record_ids, [r.record_id for r in records])
    for name in ("log_prob", "mean", "std"):
        expected = np.concatenate([getattr(each, name) for each in alone])
        np.testing.assert_allclose(getattr(together, name), expected, rtol=1e-4, atol=2e-5)
    assert np.array_equal(together.argmax, np.concatenate([each.argmax for each in alone]))
