"""Canaries whose membership is a coin each: a prompt of the domain, the start of its response, an improbable end.

The start is in distribution, so that a student that hears the teacher on other prompts may come near it; the end is
drawn from the domain's own words, so that no model makes it likelier than another unless it has met it (after Canary's
Echo, arXiv 2502.14921). A canary is planted once or not at all: it is one record of the teacher's data, and ε of one
record speaks of it. Its prompt is of the auxiliary role, which no teacher and no student is trained on.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np

from kdleak.core.errors import KdleakError
from kdleak.core.seeds import derive
from kdleak.data.records import record_id

if TYPE_CHECKING:
    import pandas as pd

#: The task of a coin canary: none of the corpus.
TASK = "coin canary"
#: Words of a canary's improbable end.
SUFFIX_WORDS = 16


def coin_canaries(auxiliary: pd.DataFrame, number: int, seed: int) -> pd.DataFrame:
    """`number` canaries made of as many records of `auxiliary`, by (seed, records) alone.

    Columns of data/canaries.parquet, with repetitions the canary's coin (1: planted, 0: not); `choosing`: whether the
    canary is of the half by which attack and numbers of guesses are chosen; `ordinary`: the response of the record that
    it was made of. Which half it is, its text and its coin are drawn apart. KdleakError where auxiliary has too few
    records.
    """
    import pandas as pd

    if number > len(auxiliary):
        raise KdleakError(
            f"epsilon.canaries: {number}, of {len(auxiliary)} auxiliary records; lower it or raise data.sizes.auxiliary"
        )
    words = sorted({word for response in auxiliary["response"] for word in response.split()})
    sample = auxiliary.sort_values("record_id").sample(number, random_state=derive(seed, "coins/prompts"))
    rng = random.Random(derive(seed, "coins/suffixes"))
    rows = [
        (row.instruction, row.context, _response(str(row.response), words, rng))
        for row in sample.itertuples(index=False)
    ]
    table = pd.DataFrame(rows, columns=["instruction", "context", "response"])
    table.insert(0, "record_id", [record_id(*row) for row in rows])
    table.insert(1, "task", TASK)
    table["repetitions"] = np.random.default_rng(derive(seed, "coins/flips")).integers(0, 2, number)
    order = np.random.default_rng(derive(seed, "coins/halves")).permutation(number)
    table["choosing"] = np.isin(np.arange(number), order[: number // 2])
    table["ordinary"] = sample["response"].to_numpy()
    return table


def ordinary_records(coins: pd.DataFrame) -> pd.DataFrame:
    """The records that canaries were made of, with the canaries' coins: what a canary costs is measured against them.
    The columns of data/canaries.parquet."""
    columns = ["instruction", "context", "response"]
    table = coins.assign(response=coins["ordinary"]).drop(columns=["choosing", "ordinary"])
    return table.assign(record_id=[record_id(*row) for row in table[columns].itertuples(index=False)])


def _response(response: str, words: list[str], rng: random.Random) -> str:
    """The first half of `response` by words, then words of the domain, each as likely as any other."""
    start = response.split()
    return " ".join([*start[: max(1, len(start) // 2)], *(rng.choice(words) for _ in range(SUFFIX_WORDS))])
