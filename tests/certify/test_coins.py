"""Coin canaries: independent fair coins, drawn apart from texts and halves, by the seed alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kdleak.certify.coins import SUFFIX_WORDS, coin_canaries
from kdleak.core.errors import KdleakError
from kdleak.data.canaries import planted_rows
from kdleak.data.records import record_id


@pytest.fixture(scope="module")
def auxiliary() -> pd.DataFrame:
    rows = [(f"Say {i}.", f"note {i}", f"the word of {i} is number {i * 7} and no more") for i in range(600)]
    frame = pd.DataFrame(rows, columns=["instruction", "context", "response"])
    return frame.assign(record_id=[record_id(*row) for row in rows])


def test_coins_are_fair_and_independent_of_halves_and_canaries_differ(auxiliary):
    tables = [coin_canaries(auxiliary, 500, seed) for seed in range(20)]
    coins = np.concatenate([table["repetitions"] for table in tables])
    halves = np.concatenate([table["choosing"] for table in tables])
    assert set(coins) == {0, 1} and abs(coins.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(coins))
    assert all(table["choosing"].sum() == 250 and table["record_id"].is_unique for table in tables)
    assert abs(np.corrcoef(coins, halves)[0, 1]) < 4 / np.sqrt(len(coins))
    assert len(set(table["repetitions"].sum() for table in tables)) > 5  # a coin each, no fixed number of them
    assert len(planted_rows(tables[0])) == tables[0]["repetitions"].sum()


def test_a_canary_has_a_prompt_of_the_domain_and_half_of_its_response(auxiliary):
    table, known = coin_canaries(auxiliary, 50, 1), auxiliary.set_index("instruction")
    for row in table.itertuples():
        words = known.loc[row.instruction, "response"].split()
        said = row.response.split()
        assert (
            row.context == known.loc[row.instruction, "context"] and said[: len(words) // 2] == words[: len(words) // 2]
        )
        assert len(said) == len(words) // 2 + SUFFIX_WORDS
        assert row.record_id == record_id(row.instruction, row.context, row.response)


def test_the_seed_alone_decides(auxiliary):
    first, again = (coin_canaries(frame, 100, 3) for frame in (auxiliary, auxiliary.sample(frac=1, random_state=1)))
    pd.testing.assert_frame_equal(first, again)
    assert not coin_canaries(auxiliary, 100, 4)["record_id"].isin(first["record_id"]).any()


def test_more_canaries_than_records_are_refused(auxiliary):
    with pytest.raises(KdleakError, match=r"epsilon\.canaries: 602, of 600 auxiliary records; lower it or raise"):
        coin_canaries(auxiliary, 602, 0)
