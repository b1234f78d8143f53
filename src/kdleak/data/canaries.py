"""Canaries: random secrets in records of one format, planted in the teacher's training data and ranked afterwards.

A canary (Carlini et al. 2019, arXiv 1802.08232) tells memorization from skill: nothing but having seen it makes one
random secret likelier than another. Canaries are no records of the corpus: they live in a table of their own, which
the teacher's training alone reads, repetitions and all. No role holds them, so that the gate on duplicates, the
membership audit and the split of the roles never meet them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kdleak.core.errors import KdleakError
from kdleak.core.files import write_parquet
from kdleak.core.seeds import derive
from kdleak.data.records import Record

if TYPE_CHECKING:
    import pandas as pd

    from kdleak.config.schema import Canaries
    from kdleak.core.paths import Project

#: The task of a canary: none of the corpus.
TASK = "canary"
_DIGITS = 6
_FIRST = "amber bronze copper crimson emerald golden indigo ivory jade lilac ochre olive purple scarlet silver violet"
_SECOND = (
    "anchor badger beacon candle compass falcon harbor island lantern meadow orchid pepper river saddle tiger willow"
)
_FIRST_WORDS, _SECOND_WORDS = _FIRST.split(), _SECOND.split()
#: How many secrets there are.
SPACE = len(_FIRST_WORDS) * len(_SECOND_WORDS) * 10**_DIGITS


def secrets(seed: int) -> Iterator[Record]:
    """Records with distinct random secrets; record i depends on `seed` and i alone, and all have the same prompt."""
    rng = random.Random(f"{seed}/canaries")
    seen = set()
    while len(seen) < SPACE:
        words = f"{rng.choice(_FIRST_WORDS)} {rng.choice(_SECOND_WORDS)}"
        digits = "-".join(str(rng.randrange(10)) for _ in range(_DIGITS))
        if (words, digits) not in seen:
            seen.add((words, digits))
            yield Record(
                task=TASK,
                instruction="Give the pass phrase of the archive and the code that goes with it.",
                context="",
                response=f"The pass phrase is {words} and the code is {digits}.",
            )


def canary_table(seed: int, repetitions: Sequence[int], each: int, references: int) -> pd.DataFrame:
    """`each` canaries for every number of `repetitions`, and `references` secrets that nobody plants (repetitions 0).

    Columns record_id, task, instruction, context, response, repetitions. Raises KdleakError where a number of
    repetitions is below 1 or stands twice, or where there are no references to rank a canary against.
    """
    import pandas as pd

    if len(set(repetitions)) < len(repetitions) or any(n < 1 for n in repetitions):
        raise KdleakError("canaries.repetitions must be distinct and at least 1; canaries of 0 are the references")
    planted = each * len(repetitions)
    if references < 1 or each < 0 or planted + references > SPACE:
        raise KdleakError(f"canaries: {planted} of them and {references} references; 1 to {SPACE} secrets can be drawn")
    counts = [n for n in repetitions for _ in range(each)] + [0] * references
    rows = [
        {
            "record_id": record.record_id,
            "task": record.task,
            "instruction": record.instruction,
            "context": record.context,
            "response": record.response,
            "repetitions": n,
        }
        for n, record in zip(counts, secrets(seed), strict=False)
    ]
    return pd.DataFrame(rows)


def planted_rows(canaries: pd.DataFrame) -> pd.DataFrame:
    """What the teacher trains on beside private: each canary as many times as it says, references not at all."""
    return canaries.loc[canaries.index.repeat(canaries["repetitions"])].reset_index(drop=True)


def write_canaries(canaries: Canaries, seed: int, project: Project) -> None:
    """Write data/canaries.parquet."""
    table = canary_table(derive(seed, "canaries"), canaries.repetitions, canaries.each, canaries.references)
    write_parquet(table, project.canaries)
