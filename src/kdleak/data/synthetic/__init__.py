"""The embedded corpus: invented people and firms with private details, in the seven tasks of Dolly-15k.

Record i follows from (seed, i) alone, so a longer corpus begins with the shorter ones; the tasks take turns.
No text comes from anywhere but the phrase grammars of this package and Faker's lists of names (another version of
Faker may bring other names, and so another corpus).
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from kdleak.data.records import Record
from kdleak.data.synthetic.brainstorming import brainstorming
from kdleak.data.synthetic.classification import classification
from kdleak.data.synthetic.creative import creative_writing
from kdleak.data.synthetic.digests import information_extraction, summarization
from kdleak.data.synthetic.questions import closed_qa, open_qa

__all__ = ["TASKS", "generate"]

_WRITERS = (
    brainstorming,
    classification,
    closed_qa,
    creative_writing,
    information_extraction,
    open_qa,
    summarization,
)
#: The tasks, in the order in which they take turns.
TASKS = tuple(writer.__name__ for writer in _WRITERS)


def generate(rows: int, seed: int) -> Iterator[Record]:
    """`rows` records; record i depends on `seed` and i only, and has task `TASKS[i % 7]`."""
    for i in range(rows):
        yield _WRITERS[i % len(_WRITERS)](random.Random(f"{seed}/{i}"))
