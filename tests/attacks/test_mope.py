"""Claims on the passes of MoPe: blocks are measured on a sample that no model and no order of the records decides."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
import pytest

from kdleak.attacks import mope
from kdleak.attacks.block_perturbation import block_mope
from kdleak.attacks.mope import PERTURBED_BLOCKS, sampled, spread
from kdleak.attacks.perturbation import Noise, PerturbationScores
from kdleak.attacks.registry import PassInput
from kdleak.auditing.blocks import block_report
from kdleak.data.encoding import EncodedRecord
from kdleak.inference.scoring import token_statistics
from kdleak.stats import auc
from tests.support.tiny_models import tiny_model


def records(n: int) -> list[EncodedRecord]:
    generator = np.random.default_rng(0)
    return [
        EncodedRecord(f"{i * 7919 % 1009:04d}", (1, 2, 3), tuple(generator.integers(4, 60, 6).tolist()), n_scored=6)
        for i in range(n)
    ]


def test_the_sample_is_the_first_by_record_id_whatever_their_order(monkeypatch):
    monkeypatch.setattr(mope, "BLOCK_RECORDS", 3)
    ids = ["d", "a", "c", "e", "b"]
    assert [ids[i] for i in sampled(ids)] == ["a", "c", "b"]
    assert {ids[::-1][i] for i in sampled(ids[::-1])} == {"a", "b", "c"}
    monkeypatch.setattr(mope, "BLOCK_RECORDS", 9)
    assert list(sampled(ids)) == [0, 1, 2, 3, 4]


def test_sampled_records_get_the_scores_that_they_get_among_all_and_others_none(monkeypatch):
    everyone, model, noise = records(12), tiny_model(layers=2, vocabulary=64), Noise(0.3, 2, seed=1)
    statistics = token_statistics(model, everyone)
    given = cast("PassInput", SimpleNamespace(records=everyone, statistics=statistics))
    monkeypatch.setattr(mope, "BLOCK_RECORDS", 5)
    drops = PERTURBED_BLOCKS.compute(model, given, (noise, 5, 12), 64, "blocks")
    known = np.stack([block.drops for block in block_mope(model, everyone, noise)])
    chosen = sampled([r.record_id for r in everyone])
    np.testing.assert_allclose(drops[:, :, chosen], known[:, :, chosen], atol=1e-6)
    left_out = np.setdiff1d(np.arange(12), chosen)
    assert len(left_out) == 7 and np.isnan(drops[:, :, left_out]).all()


def test_of_a_deep_model_a_spread_of_the_blocks_is_perturbed_each_as_among_all():
    assert spread(30, 4) == [0, 10, 19, 29] and spread(3, 12) == [0, 1, 2] and spread(30, 1) == [0]
    everyone, model, noise = records(6), tiny_model(layers=4, vocabulary=64), Noise(0.3, 2, seed=1)
    given = cast("PassInput", SimpleNamespace(records=everyone, statistics=token_statistics(model, everyone)))
    drops = PERTURBED_BLOCKS.compute(model, given, (noise, 500, 2), 64, "blocks")
    known = np.stack([block.drops for block in block_mope(model, everyone, noise)])
    np.testing.assert_allclose(drops[[0, 3]], known[[0, 3]], atol=1e-6)
    assert drops.shape == known.shape and np.isnan(drops[1:3]).all()
    keys = pd.DataFrame({"record_id": list("abcdef"), "task": "qa", "role": ["member", "nonmember"] * 3})
    report = block_report(keys, [PerturbationScores(each) for each in drops], noise)
    assert [block["index"] for block in report["blocks"]] == [0, 3]
    assert {report["spread"]["highest"], report["spread"]["lowest"]} == {0, 3}


def test_the_report_counts_and_ranks_the_records_that_were_measured():
    generator = np.random.default_rng(3)
    keys = pd.DataFrame({"record_id": [f"{i:03d}" for i in range(80)], "task": "qa"})
    keys["role"] = np.where(np.arange(80) % 2, "member", "nonmember")
    drops = generator.normal(size=(2, 2, 80))
    drops[:, :, 50:] = np.nan
    report = block_report(keys, [PerturbationScores(each) for each in drops], Noise(0.1, 2))
    assert (report["n_members"], report["n_nonmembers"]) == (25, 25)
    for block, each in zip(report["blocks"], drops.mean(1), strict=True):
        assert block["auc"] == pytest.approx(auc(each[1:50:2], each[0:50:2]).value)
